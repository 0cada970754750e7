"""What a training step frees stays with the process for the next step."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Have the C library keep what is freed; where it is not glibc's, do nothing.

    The tensors of a step on a CPU are larger than what glibc keeps by itself (32 MiB: mallopt(3), M_MMAP_THRESHOLD). It
    gives them back to the kernel at every step, which clears their pages when the next step touches them.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
