"""How much FFmpeg may take in one piece. It believes what a header counts: of 1.6 KB that promise 85 million frames it
makes an index of 2 GB, on opening the file, which no option prevents."""

from __future__ import annotations

import ctypes
import re
import threading
from pathlib import Path

MOST = 256 << 20
"""Bytes: an index of 11 million frames, two days at 60 a second, or a picture of 8192x8192 in 24 bits."""

_turn = threading.Lock()
_allowed = 0


def allow(size: int = MOST) -> None:
    """Let FFmpeg take `size` bytes in one piece, at least MOST and what was allowed before; what needs more fails as
    without memory.

    Elsewhere than on Linux this does nothing.
    """
    global _allowed
    size = max(size, MOST)
    with _turn:
        if size <= _allowed:
            return
        for library in _libraries():
            library.av_max_alloc(ctypes.c_size_t(size))
        _allowed = size


def _libraries() -> list[ctypes.CDLL]:
    """Every libavutil that this process has: PyAV's own, and OpenCV's."""
    maps = Path("/proc/self/maps")
    paths = set(re.findall(r"/\S*libavutil\S*", maps.read_text())) if maps.exists() else set()
    return [ctypes.CDLL(path) for path in sorted(paths)]
