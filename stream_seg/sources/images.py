"""Image files of a folder, a glob or a single path, in natural order."""

from __future__ import annotations

import glob
import re
import time
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

from stream_seg.errors import SourceError
from stream_seg.sources.decoded_frame import DecodedFrame, DecodedFrames, to_upright_bgr
from stream_seg.sources.ffmpeg_memory import allow_allocation
from stream_seg.sources.image_header import WIDEST_PIXEL, read_image_file
from stream_seg.sources.uri import IMAGE_SUFFIXES, Source


def list_image_files(source: Source) -> list[Path]:
    """Return the image files in natural order: 2.png before 10.png.

    Raises SourceError if there is none, or if a folder may not be read.
    """
    path = Path(source.address)
    try:
        if path.is_dir():
            candidates = list(path.iterdir())
        else:
            candidates = [path] if path.exists() else [Path(p) for p in glob.glob(source.address, recursive=True)]
        files = [p for p in candidates if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    except OSError as error:
        raise SourceError(f"{source.display}: {error.strerror}") from error
    if not files:
        verb = "contains" if path.is_dir() else "matches"
        raise SourceError(f"{source.display}: {verb} no image; an image ends in {', '.join(IMAGE_SUFFIXES)}")
    return sorted(files, key=_natural_key)


def decode_image_files(source: Source, *, rate: float, max_pixels: int) -> DecodedFrames:
    """Yield one frame per file, None for an unreadable one; sizes may differ.

    Raises SourceError for an image of more than `max_pixels`, from its header.
    """
    time_base = 1 / Fraction(rate).limit_denominator(1001)
    reformatter = VideoReformatter()
    for number, path in enumerate(list_image_files(source)):
        decoded = _decode(path, max_pixels)
        if decoded is None:
            yield None
            continue
        frame, mirrored = decoded
        captured_ns = time.monotonic_ns()
        yield DecodedFrame(to_upright_bgr(frame, reformatter, mirrored=mirrored), number, 1, time_base, captured_ns)


def _decode(path: Path, max_pixels: int) -> tuple[av.VideoFrame, bool] | None:
    """Return the decoded image, and True if its orientation mirrors it."""
    try:
        file = read_image_file(path, max_pixels=max_pixels, limit=f"max_pixels ({max_pixels}) allows")
    except OSError:
        return None
    if file is None:
        return None
    content, header = file
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
    return frames[0], header.is_mirrored(frames[0].rotation)


def _natural_key(path: Path) -> list[tuple[int, str]]:
    """Return a sort key by which digits compare as numbers, before letters."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdecimal() else (1 << 62, part) for part in parts]
