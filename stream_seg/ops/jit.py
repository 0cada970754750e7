"""Compile Python loops to machine code with numba, cached on disk between runs."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import event
from numba.core.caching import FunctionCache

LOG = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., object])
LONGEST_COMPILATION_S = 300.0
"""Time after which a compilation counts as one that hangs."""
_warned = False


def jit(function: F) -> F:
    """Compile a function on its first call; it runs without the GIL.

    Later runs load it from numba's cache: NUMBA_CACHE_DIR, else `__pycache__`, else the user's cache directory. A cache
    that cannot be used is logged once; the function is then compiled in every run. Functions that it calls must be in
    the same file, or the cache goes stale. The cache is pickled code, so a directory that other users can write is not
    used.
    """
    dispatcher = njit(nogil=True)(function)
    try:
        cache: Any = cast(Any, _Cache)(function)  # numba has few types
        if fault := _explain_distrust(Path(cache.cache_path), function):
            _warn(f"{cache.cache_path} {fault}")
        else:
            cast(Any, dispatcher)._cache = cache  # as njit(cache=True) does, with its own class
    except RuntimeError:
        _warn("no folder is writable; set NUMBA_CACHE_DIR to one that is")
    except OSError as error:
        _warn(str(error))
    return cast(F, dispatcher)


def is_compiling() -> bool:
    """Return True while numba compiles a function in any thread, for up to LONGEST_COMPILATION_S."""
    return _COMPILATIONS.running


class _Cache(FunctionCache):
    """A cache whose errors are logged, and end nothing: a full disk, a damaged file."""

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        try:
            yield  # to load a function: None if an error is suppressed here; or to save one
        except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything
            _warn(f"{self.cache_path}: {getattr(error, 'strerror', None) or error or type(error).__name__}")
            if not isinstance(error, OSError):
                with suppress(OSError):
                    cast(Any, self).flush()  # empty the damaged index


class _Compilations(event.Listener):
    """Counts the compilations under way."""

    def __init__(self) -> None:
        self._lock, self._number, self._since_s = Lock(), 0, 0.0

    @property
    def running(self) -> bool:
        return self._number > 0 and time.monotonic() - self._since_s < LONGEST_COMPILATION_S

    def on_start(self, _: event.Event) -> None:
        with self._lock:
            self._number, self._since_s = self._number + 1, time.monotonic()

    def on_end(self, _: event.Event) -> None:
        with self._lock:
            self._number -= 1


_COMPILATIONS = _Compilations()
cast(Any, event).register("numba:compile", _COMPILATIONS)


def _explain_distrust(folder: Path, function: Callable[..., object]) -> str | None:
    """Return the reason not to load code from this folder; None for one that is as safe as the program itself."""
    if folder.parent == Path(function.__code__.co_filename).parent:
        return None
    status = folder.stat()
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid})"
    return "is writable by other users" if status.st_mode & stat.S_IWOTH else None


def _warn(fault: str) -> None:
    """Log the first fault of this process."""
    global _warned
    if not _warned:
        _warned = True
        LOG.warning("numba's cache is not used, functions are compiled in every run: %s", fault)
