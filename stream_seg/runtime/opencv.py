"""Threads of OpenCV's functions while graphs run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import cv2

from stream_seg.backends.cpu import count_cores

_LOCK, _LIMITS = Lock(), Counter[int]()
_before = 0


@contextmanager
def share_cores(stages: int) -> Iterator[None]:
    """Let a call of OpenCV use as many threads as there are cores for each of `stages`, at least one.

    By default it uses all of them, and waits for its threads on cores that other stages use: on two cores, four live
    sources then reach a tenth less frames/s (`benchmarks/overload.py`). The number is one of the whole process: of
    several graphs the lowest counts, and the last one restores it.
    """
    global _before
    threads = max(1, count_cores() // stages)
    with _LOCK:
        if not _LIMITS:
            _before = cv2.getNumThreads()
        _LIMITS[threads] += 1
        cv2.setNumThreads(min(_LIMITS))
    try:
        yield
    finally:
        with _LOCK:
            _LIMITS[threads] -= 1
            if not _LIMITS[threads]:
                del _LIMITS[threads]
            cv2.setNumThreads(min(_LIMITS, default=_before))
