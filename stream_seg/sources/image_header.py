"""Format, size and orientation of an image file, read with Pillow from its header alone.

A bomb of 20000x20000 pixels is refused before anything of that size is allocated: FFmpeg, which decodes the images, has
no way to read only a header.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, cast

from stream_seg.errors import SourceError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 8192 * 8192
"""Default limit of the pixels of an image."""
WIDEST_PIXEL = 16
"""Bytes: 4 channels of 32 bits, not compressed."""
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


class ImageHeader(NamedTuple):
    """`codec` is FFmpeg's name of the decoder; `orientation` is that of EXIF, 1 by default."""

    codec: str
    width: int
    height: int
    orientation: int = 1

    def is_mirrored(self, rotation: int) -> bool:
        """Return True if the orientation mirrors the image.

        FFmpeg reads the orientation too, but PyAV reports its `rotation` only; if that differs, the result is False.
        """
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
    from PIL.Image import DecompressionBombError

    for codec, opener in _openers().items():
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata; filters are global, hence the lock
            try:
                image = opener(cast("IO[bytes]", _BoundedFile(file)))
            except DecompressionBombError as error:
                raise SourceError(f"{name}: {error}") from error
            except Exception:  # noqa: BLE001, S112 - whatever the parser raises, the file is not of this format
                continue
            return ImageHeader(codec, *image.size, _orientation(image))
    return None


def _openers() -> dict[str, Callable[[IO[bytes]], ImageFile]]:
    """Return Pillow's classes by FFmpeg's decoder. `Image.open` would import 40 more, and check another limit."""
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    return {
        "mjpeg": JpegImageFile,
        "png": PngImageFile,
        "bmp": BmpImageFile,
        "webp": WebPImageFile,
        "tiff": TiffImageFile,
    }


def _orientation(image: ImageFile) -> int:
    """Return the EXIF orientation of an opened image; a TIFF has it among its own tags."""
    from PIL.Image import Exif
    from PIL.TiffImagePlugin import TiffImageFile

    if isinstance(image, TiffImageFile):
        return cast("int", image.tag_v2.get(ORIENTATION, 1))
    data, exif = image.info.get("exif", b""), Exif()
    if len(data) > EXIF_BYTES:
        return 1
    try:
        exif.load(data)
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
