"""What the index of an mp4 claims, before FFmpeg believes it: it makes an entry of some 35 bytes for every frame that a
count in the header promises, and there are counts that no bytes stand behind."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof")
INSIDE = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
"""Boxes of ISO/IEC 14496-12 that hold those below."""
MOST_BOXES = 200_000
HARMLESS = 1_000_000
"""Frames that cost 35 MB."""


def unfounded_frames(path: Path) -> int:
    """How many frames an mp4 promises by counts alone, where those are more than it can hold; else, and for any other
    file, 0. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        if (size := file.seek(0, 2)) < 8:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:8] not in FIRST:
                return 0
            promised = 0
            for number, (kind, at, end) in enumerate(_boxes(data, 0, size)):
                promised += _counted(data, kind, at, end)
                if number == MOST_BOXES:
                    break
            return promised if promised > max(size, HARMLESS) else 0


def _boxes(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the content of every box, those inside others too."""
    todo = [(start, end)]
    while todo:
        start, end = todo.pop()
        if end - start < 8:
            continue
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and end - start >= 16:
            (size,), head = struct.unpack_from(">Q", data, start + 8), 16
        close = end if size == 0 else min(end, start + size)
        if close < start + head:
            continue
        yield kind, start + head, close
        todo.append((close, end))
        if kind in INSIDE:
            todo.append((start + head, close))


def _counted(data: mmap.mmap, kind: bytes, at: int, end: int) -> int:
    """The count of a table that has no row for each frame: all of one size (stsz), all as by default (trun)."""
    if kind == b"stsz" and end - at >= 12:
        size, count = struct.unpack_from(">4xII", data, at)
        return count if size else 0
    if kind == b"trun" and end - at >= 8:
        flags, count = struct.unpack_from(">II", data, at)
        return 0 if flags & 0xF00 else count
    return 0
