"""Limit of FFmpeg's single allocations. FFmpeg trusts the counts of a header: for a file of 1.6 KB that promises 85
million frames it allocates an index of 2 GB while opening it, which no option prevents."""

from __future__ import annotations

import ctypes
import re
import threading
from pathlib import Path

DEFAULT_BYTES = 256 << 20
"""An index of 11 million frames, two days at 60 frames/s, or an image of 8192x8192 in 24 bits."""

_lock = threading.Lock()
_limit = 0


def allow_allocation(size: int = DEFAULT_BYTES) -> None:
    """Let FFmpeg allocate `size` bytes at once; a larger allocation fails as if memory had run out.

    The limit is never lowered below DEFAULT_BYTES or an earlier call. Does nothing on systems other than Linux.
    """
    global _limit
    size = max(size, DEFAULT_BYTES)
    with _lock:
        if size <= _limit:
            return
        for library in _libraries():
            library.av_max_alloc(ctypes.c_size_t(size))
        _limit = size


def _libraries() -> list[ctypes.CDLL]:
    """Return every libavutil of this process: that of PyAV, and that of OpenCV."""
    maps = Path("/proc/self/maps")
    paths = set(re.findall(r"/\S*libavutil\S*", maps.read_text())) if maps.exists() else set()
    return [ctypes.CDLL(path) for path in sorted(paths)]
