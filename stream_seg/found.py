"""Whether a file is there, where even to ask may be refused."""

from __future__ import annotations

from pathlib import Path

from stream_seg.errors import StreamSegError


def is_file(path: Path, *, error: type[StreamSegError]) -> bool:
    """`path.is_file()`. Raises `error` where that cannot be told: a folder that may not be entered, a name too long."""
    try:
        return path.is_file()
    except OSError as refused:
        raise error(f"{path}: {refused.strerror}") from refused
