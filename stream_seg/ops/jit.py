"""Machine code from Python loops, by numba, kept on disk between runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile at the first call, without the GIL; later runs load it from numba's cache (in `__pycache__`, else in the
    user's cache directory, or NUMBA_CACHE_DIR). What it calls must be in the same file, or the cache goes stale.

    That cache is code, pickled: one that everybody may write is left alone.
    """
    try:
        kept = njit(cache=True, nogil=True)(function)
        if _ours(Path(kept.stats.cache_path or ""), beside=Path(function.__code__.co_filename)):
            return cast(F, kept)
    except RuntimeError:  # no directory can be written
        pass
    return cast(F, njit(nogil=True)(function))  # compiled anew in every run


def _ours(folder: Path, *, beside: Path) -> bool:
    """Whether it is this user's and not everybody's; or beside the program, which is no safer."""
    if folder.parent == beside.parent:
        return True
    found = folder.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH
