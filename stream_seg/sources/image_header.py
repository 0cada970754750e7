"""Headers of image files, read with Pillow.

Format, size and orientation are known before anything of the image's size is allocated, so that a bomb of 20000x20000
pixels is refused: FFmpeg, which decodes most of the images, has no way to read only a header.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, TypeAlias, cast

from stream_seg.errors import SourceError
from stream_seg.installation import install_hint, reinstall_hint
from stream_seg.sources.container import WIDEST_PIXEL

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    Opener: TypeAlias = Callable[[IO[bytes]], ImageFile]

HEADER_BYTES, TIFF_BYTES = 64 << 20, 1 << 30
"""Limit of the bytes read for a header, and of the bytes besides the image; a TIFF may contain further images. A WebP
or AVIF may have no more in total, since Pillow parses it whole."""
READ_BYTES = 64
"""Least cost of one read of a header: Pillow reads padding byte by byte, and each of these reads takes time."""
EXIF_BYTES = 1 << 16
"""Capacity of a JPEG segment; larger EXIF data is ignored."""
BRAND_BYTES = 64
"""Bytes in which an AVIF or HEIC file names its brands."""
ORIENTATION, TILE_WIDTH, TILE_HEIGHT = 274, 322, 323
"""Tags of TIFF and EXIF."""
MIRRORED = {2: 180, 4: 0, 5: 90, 7: 90}
"""EXIF orientations that no rotation alone makes upright, and the rotation in degrees that FFmpeg reports for each."""

_quiet = Lock()


class ImageHeader(NamedTuple):
    """`codec` is the name of the format, `orientation` that of EXIF, 1 by default; `tile` is the (width, height) of
    a TIFF's tiles."""

    codec: str
    width: int
    height: int
    orientation: int = 1
    tile: tuple[int, int] = (0, 0)

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
        if header.tile[0] * header.tile[1] > max_pixels:
            raise SourceError(f"{path}: has tiles of {header.tile[0]}x{header.tile[1]} pixels, more than {limit}")
        if size > WIDEST_PIXEL * pixels + (TIFF_BYTES if header.codec == "tiff" else HEADER_BYTES):
            raise SourceError(f"{path}: is {size} bytes for {shown}, which is no image")
        file.seek(0)
        return file.read(), header


def read_header(file: BinaryIO, *, name: str) -> ImageHeader | None:
    """Return the header of a JPEG, PNG, BMP, WebP, TIFF, AVIF or HEIC file; None for any other, or one truncated in its
    header.

    Raises SourceError for a WebP of more pixels than Pillow accepts, 179 million, and for a format that needs a package
    which is not installed.
    """
    from PIL.Image import DecompressionBombError

    brands = file.read(BRAND_BYTES)
    for codec, opener in _list_openers(brands, name=name).items():
        with quiet():
            try:
                image = opener(cast("IO[bytes]", _BoundedFile(file)))
            except DecompressionBombError as error:
                raise SourceError(f"{name}: {error}") from error
            except Exception:  # noqa: BLE001, S112 - whatever the parser raises, the file is not of this format
                continue
            if codec != "tiff":
                return ImageHeader(codec, *image.size, _read_orientation(image))
            tags = cast("dict[int, int]", image.tag_v2)  # type: ignore[attr-defined] # of a TiffImageFile
            # libtiff allocates a whole tile, however small the image is.
            tile = tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0)
            return ImageHeader(codec, *image.size, tags.get(ORIENTATION, 1), tile)
    return None


def _list_openers(begin: bytes, *, name: str) -> dict[str, Opener]:
    """Return the classes of Pillow that may open a file, by codec. `begin`: its first bytes."""
    from PIL import AvifImagePlugin, BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    if begin[4:8] != b"ftyp":
        # `Image.open` would import 40 more formats, and check another limit.
        return {
            "mjpeg": JpegImagePlugin.JpegImageFile,
            "png": PngImagePlugin.PngImageFile,
            "bmp": BmpImagePlugin.BmpImageFile,
            "webp": WebPImagePlugin.WebPImageFile,
            "tiff": TiffImagePlugin.TiffImageFile,
        }
    if b"avif" in begin[8:] or b"avis" in begin[8:]:
        if not AvifImagePlugin.SUPPORTED:
            raise SourceError(f"{name}: AVIF images need a Pillow with AVIF: {reinstall_hint('pillow')}")
        return {"avif": AvifImagePlugin.AvifImageFile}
    if any(brand in begin[8:] for brand in (b"heic", b"heix", b"mif1")):
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            hint = install_hint("pillow-heif")
            raise SourceError(f"{name}: HEIC images need the package pillow-heif: {hint}") from error
        return {"heif": HeifImageFile}
    return {}


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Pillow's warnings, which are about metadata. Filters are global, hence one thread at a time."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_image(content: bytes, codec: str, *, name: str) -> ImageFile:
    """Return Pillow's image of a file whose header is known, not yet decoded."""
    return _list_openers(content[:BRAND_BYTES], name=name)[codec](io.BytesIO(content))


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
