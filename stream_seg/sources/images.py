"""Image files of a folder, a glob or a single path, in natural order."""

from __future__ import annotations

import glob
import re
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stream_seg.errors import SourceError
from stream_seg.sources.container import WIDEST_PIXEL, allow_allocation
from stream_seg.sources.convert import to_upright_bgr
from stream_seg.sources.excerpt import Excerpt
from stream_seg.sources.image_header import ImageHeader, open_image, quiet, read_image_file
from stream_seg.sources.uri import IMAGE_SUFFIXES, Source
from stream_seg.sources.video import DecodedFrame, DecodedFrames
from stream_seg.types import Image

MAX_PIXELS = 8192 * 8192
"""Default limit of the pixels of an image."""
PILLOW_CODECS = frozenset(("avif", "heif", "tiff", "webp"))
"""Formats that Pillow decodes. FFmpeg shows one tile of a HEIC, black tiles and wrong colours of some TIFFs, and no
animated WebP."""
FLIPS = {2: 1, 4: 0, 5: 0, 7: 0}
"""EXIF orientations that mirror an image, and OpenCV's code of the flip that comes first."""
TURNS = {
    3: cv2.ROTATE_180,
    5: cv2.ROTATE_90_CLOCKWISE,
    6: cv2.ROTATE_90_CLOCKWISE,
    7: cv2.ROTATE_90_COUNTERCLOCKWISE,
    8: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


def list_input_files(source: Source) -> list[Path]:
    """Return the files that a source reads; for images also their folders, where label maps would mix with them."""
    if source.kind == "images":
        with suppress(SourceError):  # reported when the source is opened
            files = list_image_files(source)
            return [*files, *{file.parent for file in files}]
    return [Path(source.address)] if source.kind == "file" else []


def list_image_files(source: Source) -> list[Path]:
    """Return the image files in natural order: 2.png before 10.png. Raises SourceError if none can be found."""
    path = Path(source.address)
    try:
        if path.is_dir():
            candidates = list(path.iterdir())
        else:
            candidates = [path] if path.exists() else [Path(p) for p in glob.glob(source.address, recursive=True)]
        # macOS writes metadata of a.png into ._a.png.
        visible = candidates if candidates == [path] else [p for p in candidates if not p.name.startswith(".")]
        files = [p for p in visible if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    except OSError as error:
        raise SourceError(f"{source.display}: {error.strerror}") from error
    if not files:
        verb = "contains" if path.is_dir() else "matches"
        raise SourceError(f"{source.display}: {verb} no image; an image ends in {', '.join(IMAGE_SUFFIXES)}")
    return sorted(files, key=_natural_key)


def _natural_key(path: Path) -> list[tuple[int, str]]:
    """Return a sort key by which digits compare as numbers, before letters."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdecimal() else (1 << 62, part) for part in parts]


def decode_image_files(
    source: Source, *, rate: float, max_pixels: int, excerpt: Excerpt | None = None
) -> DecodedFrames:
    """Yield a frame per file, None for an unreadable one. Raises SourceError for an image of more than `max_pixels`.

    Files outside `excerpt` are not read.
    """
    time_base, reformatter, excerpt = image_interval(rate), VideoReformatter(), excerpt or Excerpt()
    for number, path in enumerate(list_image_files(source)):
        choice = excerpt.choose(number * time_base)
        if choice == "end":
            return
        if choice == "skip":
            continue
        image, captured_ns = _decode(path, max_pixels, reformatter), time.monotonic_ns()
        yield None if image is None else DecodedFrame(image, number, 1, time_base, captured_ns)
    excerpt.check_begun(source.display)


def image_interval(rate: float) -> Fraction:
    """Return the seconds from one image to the next at `rate` images/s."""
    return 1 / Fraction(rate).limit_denominator(1001)


def _decode(path: Path, max_pixels: int, reformatter: VideoReformatter) -> Image | None:
    """Return the image of a file, None for a file that is no image or damaged. Raises SourceError."""
    try:
        file = read_image_file(path, max_pixels=max_pixels, limit=f"max_pixels ({max_pixels}) allows")
    except OSError:
        return None
    if file is None:
        return None
    content, header = file
    if header.codec in PILLOW_CODECS:
        return _decode_with_pillow(path, content, header)
    allow_allocation(WIDEST_PIXEL * header.width * header.height)
    decoder = av.CodecContext.create(header.codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options = {"max_pixels": str(max_pixels)}
    if header.codec == "mjpeg":  # half a JPEG would pass for a whole one; for other formats half is an error anyway
        decoder.options["err_detect"] = "explode"
    try:
        frames = decoder.decode(av.Packet(content)) or decoder.decode(None)
    except av.FFmpegError:
        return None
    if not frames or frames[0].is_corrupt:
        return None
    mirrored = header.is_mirrored(frames[0].rotation)
    return to_upright_bgr(frames[0], reformatter, name=str(path), mirrored=mirrored)


def _decode_with_pillow(path: Path, content: bytes, header: ImageHeader) -> Image | None:
    with quiet():
        try:
            image = open_image(content, header.codec, name=str(path))
            image.load()
        except Exception:  # noqa: BLE001 - whatever the decoder raises, the file is damaged
            return None
        if image.mode in ("F", "I"):
            raise SourceError(f"{path}: has pixels of 32 bits, whose white is unknown; convert them to 8 or 16 bits")
        if image.mode.startswith("I;16"):
            return np.asarray(cv2.cvtColor((np.asarray(image) >> 8).astype(np.uint8), cv2.COLOR_GRAY2BGR), np.uint8)
        bgr = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    if header.codec != "tiff":  # Pillow has turned a TIFF already
        if (flip := FLIPS.get(header.orientation)) is not None:
            bgr = cv2.flip(bgr, flip)
        if (turn := TURNS.get(header.orientation)) is not None:
            bgr = cv2.rotate(bgr, turn)
    return np.asarray(bgr, np.uint8)
