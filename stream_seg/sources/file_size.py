"""Tell from the size in its header that a video file is truncated: FFmpeg ends such a file without an error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
"""Identifiers of the elements of a Matroska or WebM file: its header, and all the rest."""
RIFF_UNKNOWN = (0, 0xFFFFFFFF)
"""Sizes of an AVI that was never finished."""


def count_missing_bytes(path: Path) -> int:
    """Return how many bytes a Matroska, WebM or AVI file lacks; 0 if none, or if its size is unknown."""
    size = 0
    with suppress(OSError), path.open("rb") as file:
        begin = file.read(4)
        if begin == EBML:
            header = _read_size(file)
            file.seek(header or 0, 1)
            length = _read_size(file) if header is not None and file.read(4) == SEGMENT else None
            size = 0 if length is None else file.tell() + length
        elif begin == b"RIFF":
            length = int.from_bytes(file.read(4), "little")
            size = 0 if length in RIFF_UNKNOWN else 8 + length
        return max(0, size - path.stat().st_size)
    return 0


def _read_size(file: BinaryIO) -> int | None:
    """Return the size of a Matroska element; None if it is unknown, as in a recording that is still written."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value
