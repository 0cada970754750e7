"""Image files of a folder, a glob or a single path, in natural order.

Pillow reads format, size and orientation from the header, so that a bomb of 20000x20000 pixels is refused before
anything of that size is allocated: FFmpeg, which decodes the images, has no way to read only a header.
"""

from __future__ import annotations

import glob
import io
import os
import re
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, cast

import av
from av.video.reformatter import VideoReformatter

from stream_seg.errors import SourceError
from stream_seg.sources.container import WIDEST_PIXEL, allow_allocation
from stream_seg.sources.convert import to_upright_bgr
from stream_seg.sources.excerpt import Excerpt
from stream_seg.sources.uri import IMAGE_SUFFIXES, Source
from stream_seg.sources.video import DecodedFrame, DecodedFrames

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 8192 * 8192
"""Default limit of the pixels of an image."""
HEADER_BYTES, TIFF_BYTES = 64 << 20, 1 << 30
"""Limit of the bytes read for a header, and of the bytes besides the image; a TIFF may contain further images. A WebP
may have no more in total, since Pillow parses it whole."""
READ_BYTES = 64
"""Least cost of one read of a header: Pillow reads padding byte by byte, and each of these reads takes time."""
EXIF_BYTES = 1 << 16
"""Capacity of a JPEG segment; larger EXIF data is ignored."""
ORIENTATION = 274
MIRRORED = {2: 180, 4: 0, 5: 90, 7: 90}
"""EXIF orientations that no rotation alone makes upright, and the rotation in degrees that FFmpeg reports for each."""

_quiet = Lock()


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
        files = [p for p in candidates if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
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
        decoded, captured_ns = _decode(path, max_pixels), time.monotonic_ns()
        if decoded is None:
            yield None
        else:
            image = to_upright_bgr(decoded[0], reformatter, name=str(path), mirrored=decoded[1])
            yield DecodedFrame(image, number, 1, time_base, captured_ns)
    excerpt.check_begun(source.display)


def image_interval(rate: float) -> Fraction:
    """Return the seconds from one image to the next at `rate` images/s."""
    return 1 / Fraction(rate).limit_denominator(1001)


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


class ImageHeader(NamedTuple):
    """`codec` is FFmpeg's name of the decoder; `orientation` is that of EXIF, 1 by default."""

    codec: str
    width: int
    height: int
    orientation: int = 1

    def is_mirrored(self, rotation: int) -> bool:
        """Return True if the orientation mirrors the image; False if its rotation is not that which PyAV reports."""
        return MIRRORED.get(self.orientation) == abs(rotation)


def read_image_file(path: Path, *, max_pixels: int, limit: str) -> tuple[bytes, ImageHeader] | None:
    """Return the content of an image file and its header; None for a file that is no image.

    Raises SourceError for an image of more than `max_pixels`, which the message calls `limit`, and for a file far
    larger than its image, before it is read whole; OSError where the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = read_header(file, name=str(path))
        if header is None:
            return None
        pixels, shown = header.width * header.height, f"{header.width}x{header.height} pixels"
        if pixels > max_pixels:
            raise SourceError(f"{path}: is {shown}, more than {limit}")
        if size > WIDEST_PIXEL * pixels + (TIFF_BYTES if header.codec == "tiff" else HEADER_BYTES):
            raise SourceError(f"{path}: is {size} bytes for {shown}, which is no image")
        file.seek(0)
        return file.read(), header


def read_header(file: BinaryIO, *, name: str) -> ImageHeader | None:
    """Return the header of a JPEG, PNG, BMP, WebP or TIFF file; None for any other, or one truncated in its header.

    Raises SourceError for a WebP of more pixels than Pillow accepts, 179 million.
    """
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
    from PIL.Image import DecompressionBombError

    # `Image.open` would import 40 more formats, and check another limit.
    openers: dict[str, Callable[[IO[bytes]], ImageFile]] = {
        "mjpeg": JpegImagePlugin.JpegImageFile,
        "png": PngImagePlugin.PngImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
    }
    for codec, opener in openers.items():
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata; filters are global, hence the lock
            try:
                image = opener(cast("IO[bytes]", _BoundedFile(file)))
            except DecompressionBombError as error:
                raise SourceError(f"{name}: {error}") from error
            except Exception:  # noqa: BLE001, S112 - whatever the parser raises, the file is not of this format
                continue
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                return ImageHeader(codec, *image.size, cast("int", image.tag_v2.get(ORIENTATION, 1)))
            return ImageHeader(codec, *image.size, _read_orientation(image))
    return None


def _read_orientation(image: ImageFile) -> int:
    from PIL.Image import Exif

    data, exif = image.info.get("exif", b""), Exif()
    try:
        exif.load(data if len(data) <= EXIF_BYTES else b"")
    except Exception:  # noqa: BLE001 - whatever a parser raises, no orientation can be read
        return 1
    return cast("int", exif.get(ORIENTATION, 1))


class _BoundedFile:
    """A file of which at most HEADER_BYTES are read in all; more raises OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._remaining, self._size = file, HEADER_BYTES, file.seek(0, io.SEEK_END)
        self.seek, self.tell = file.seek, file.tell
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, by default all that follow."""
        rest = max(0, self._size - self._file.tell())
        size = rest if size < 0 else min(size, rest)
        self._remaining -= max(size, READ_BYTES)
        if self._remaining < 0:
            raise OSError("the header is too long")
        return self._file.read(size)
