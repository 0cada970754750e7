"""What a picture file is and how large, from its first bytes: a bomb of 20000x20000 is refused before anything of
that size is allocated. FFmpeg has no way to ask for a header alone. And whether it is to be shown mirrored."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stream_seg.errors import SourceError

MAX_PIXELS = 8192 * 8192
"""What is refused beyond, unless a user says otherwise."""
WIDEST_PIXEL = 16
"""Bytes: 4 channels of 32 bits, not compressed."""
HEAD, PAGES = 64 << 20, 1 << 30
"""Bytes: what a file may hold beside its picture; a TIFF holds more pictures than the first."""
_MARK = re.compile(rb"\xff([^\xff])")
TIFF = (b"II*\0", b"MM\0*")
ORIENTATION = 274
MIRRORED = {2: 180, 4: 0, 5: 90, 7: 90}
"""The orientations, of EXIF's eight, that no turn alone makes upright, and the turn in degrees that each asks for."""


class PictureHeader(NamedTuple):
    """`codec` is FFmpeg's name of the decoder."""

    codec: str
    width: int
    height: int


def read_picture(path: Path, *, max_pixels: int, limit: str) -> tuple[bytes, PictureHeader] | None:
    """A picture file, and what its first bytes say; None where they are no picture's.

    Raises SourceError for a picture of more than `max_pixels`, which `limit` names, and for a file that holds far more
    than its picture, before it is read whole; OSError where it cannot be.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(min(HEAD, size))  # read(HEAD) would first take all of that
        header = picture_header(head)
        tiff = head[:4] in TIFF
        if header is None and tiff and len(head) == HEAD:
            header = picture_header(_tiff_head(file, head))
        if header is None or not (pixels := header.width * header.height):
            return None
        shown = f"{header.width}x{header.height} pixels"
        if pixels > max_pixels:
            raise SourceError(f"{path}: is {shown}, more than {limit}")
        if size > WIDEST_PIXEL * pixels + (PAGES if tiff else HEAD):
            raise SourceError(f"{path}: is {size} bytes for {shown}, which is no picture")
        file.seek(len(head))
        return head + file.read(), header


def _tiff_head(file: BinaryIO, head: bytes) -> bytes:
    """A TIFF's beginning with its first directory right behind it, wherever in the file that is."""
    order = "<" if head.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", head, 4)
    file.seek(directory)
    return head[:4] + struct.pack(order + "I", 8) + file.read(2 + 12 * 0xFFFF)


def picture_header(data: bytes) -> PictureHeader | None:
    """None where it is none of JPEG, PNG, BMP, WebP and TIFF, or breaks off in its header."""
    try:
        if data.startswith(b"\xff\xd8"):
            return PictureHeader("mjpeg", *_jpeg_size(data))
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return PictureHeader("png", *struct.unpack_from(">II", data, 16))
        if data.startswith(b"BM"):
            return PictureHeader("bmp", *_bmp_size(data))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return PictureHeader("webp", *_webp_size(data))
        if data[:4] in TIFF:
            return PictureHeader("tiff", *_tiff_size(data))
    except (struct.error, KeyError):
        return None
    return None


def mirrored_by_exif(data: bytes, turned: int) -> bool:
    """Whether a picture file says that it is to be shown mirrored. FFmpeg knows, but PyAV tells the angle alone:
    `turned` degrees, by which it shows whether it has read the same."""
    try:
        exif = _exif(data)
        said = _tags(exif, ORIENTATION).get(ORIENTATION, 1) if exif[:4] in TIFF else 1
    except struct.error:
        return False
    return said in MIRRORED and MIRRORED[said] == abs(turned)


def _exif(data: bytes) -> bytes:
    """EXIF is a TIFF file without a picture; a TIFF file is its own. Raises struct.error where there is none."""
    if data.startswith(b"\xff\xd8"):
        segments = ((at, length) for kind, at, length in _jpeg_segments(data) if kind == 0xE1)
        at, length = next((at, length) for at, length in segments if data[at : at + 6] == b"Exif\0\0")
        return data[at + 6 : at + length]
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 8
        while True:
            length, name = struct.unpack_from(">I4s", data, at)
            if name == b"eXIf":
                return data[at + 8 : at + 8 + length]
            at += 12 + length
    if data.startswith(b"RIFF"):
        at = 12
        while True:
            name, length = struct.unpack_from("<4sI", data, at)
            if name == b"EXIF":
                return data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0")
            at += 8 + length + length % 2
    return data


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, place, length) of what each holds, whatever lies between them; ends in struct.error."""
    at = 2
    while mark := _MARK.search(data, at):
        (length,) = struct.unpack_from(">H", data, mark.end())
        yield mark[1][0], mark.end() + 2, length - 2
        at = mark.end() + max(2, length)
    raise struct.error("no further segment")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """From the start of frame, which any number of segments may precede."""
    starts = (at for kind, at, _ in _jpeg_segments(data) if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC))
    height, width = struct.unpack_from(">HH", data, next(starts) + 1)
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    """The height is negative where the lines run from top to bottom."""
    old = struct.unpack_from("<I", data, 14) == (12,)
    width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
    return abs(width), abs(height)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return 1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff_size(data: bytes) -> tuple[int, int]:
    values = _tags(data, 256, 257)
    return values[256], values[257]


def _tags(data: bytes, *wanted: int) -> dict[int, int]:
    """Those of the first directory, of 16 or 32 bits."""
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    values = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, width_of_value = struct.unpack_from(order + "HH", data, entry)
        if tag in wanted:
            (values[tag],) = struct.unpack_from(order + ("H" if width_of_value == 3 else "I"), data, entry + 8)
    return values
