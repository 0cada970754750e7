"""Compile Python loops to machine code with numba, cached on disk between runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def jit(function: F) -> F:
    """Compile a function on its first call; it runs without the GIL.

    Later runs load it from numba's cache: `__pycache__`, else the user's cache directory, or NUMBA_CACHE_DIR. Functions
    that it calls must be in the same file, or the cache goes stale. The cache is pickled code, so a directory that
    other users can write is not used.
    """
    try:
        cached = njit(cache=True, nogil=True)(function)
        folder = Path(cached.stats.cache_path or "")
        if folder.parent == Path(function.__code__.co_filename).parent:  # as safe as the program itself
            return cast(F, cached)
        if (status := folder.stat()).st_uid == os.geteuid() and not status.st_mode & stat.S_IWOTH:
            return cast(F, cached)
    except RuntimeError:  # no writable directory
        pass
    return cast(F, njit(nogil=True)(function))  # compiled again in every run
