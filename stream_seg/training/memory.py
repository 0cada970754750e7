"""The memory of a training: what a step frees stays with the process for the next one; what does not fit is said."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stream_seg.errors import ConfigError
from stream_seg.training.recipe import Recipe

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


@contextmanager
def within_memory(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Raises ConfigError where what is done inside does not fit into the memory of `device`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # of a GPU it is torch.OutOfMemoryError; of the CPU a RuntimeError like any other
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not re.search("alloc.*memory", str(error)):
            raise
        height, width = recipe.crop
        raise ConfigError(
            f"batch: {recipe.batch} crops of {height}x{width} do not fit into the memory of"
            f" {'the GPU' if device.type == 'cuda' else 'this machine'}; a smaller batch or crop may"
        ) from error
