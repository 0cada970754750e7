"""Machine code from Python loops, by numba, kept on disk between runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile at the first call, without the GIL; later runs load it from numba's cache (in `__pycache__`, else in the
    user's cache directory, or NUMBA_CACHE_DIR). What it calls must be in the same file, or the cache goes stale."""
    try:
        return cast(F, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # no directory can be written: compile anew in every run
        return cast(F, njit(nogil=True)(function))
