"""Tune glibc's memory allocator for long runs. With another C library these functions do nothing."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def limit_heaps() -> None:
    """Let all threads share two heaps: one per thread would leak 4.5 MB/min where new threads reopen a camera."""
    _mallopt({M_ARENA_MAX: 2})


def keep_freed_memory() -> None:
    """Keep freed memory in the process, so that the kernel need not clear its pages again at every training step.

    The tensors of a step on a CPU are larger than glibc keeps by default (32 MiB: mallopt(3), M_MMAP_THRESHOLD).
    """
    _mallopt({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1})


def _mallopt(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
