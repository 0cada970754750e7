"""Tune glibc's memory allocator for long runs. With another C library these functions do nothing."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def limit_heaps() -> None:
    """Let all threads share two heaps.

    By default a new thread gets its own heap; a camera that is reopened again and again, each time by a new thread,
    would leak 4.5 MB a minute.
    """
    _mallopt({M_ARENA_MAX: 2})


def keep_freed_memory() -> None:
    """Keep freed memory in the process.

    The tensors of a training step on a CPU are larger than glibc keeps by default (32 MiB: mallopt(3),
    M_MMAP_THRESHOLD). It returns them to the kernel at every step, which clears their pages when the next step uses
    them.
    """
    _mallopt({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1})


def _mallopt(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
