"""When to try again, and whether a picture has stopped moving: no clock, no thread, no socket."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stream_seg.types import Image

FIRST_S = 0.25
CAP_S = 30.0
STILL_LEVELS = 1
"""Grey levels by which a picture may differ from another and still be the same: a decoder's rounding. The noise of any
sensor is more."""


class Backoff:
    """How long to wait before each attempt: from a quarter of a second, doubled, up to half a minute.

    The shorter waits are drawn from their upper half, so that cameras that fell together do not come back together; at
    the cap a twentieth is enough to keep them apart, and an hour of outage stays below 130 attempts.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    def failed(self) -> float:
        """Another attempt failed, or a connection broke: the seconds to wait before the next."""
        wait_s = FIRST_S * 2.0 ** min(self._failures, 16)
        self._failures += 1
        share = 0.5 if wait_s < CAP_S else 0.05
        return min(wait_s, CAP_S) * (1 - share * self._random())

    def steady(self) -> None:
        """The source has been up for a while: its next outage is a new one."""
        self._failures = 0


class Stillness:
    """Since when a stream shows the same picture, seen on every eighth pixel of every eighth line."""

    def __init__(self) -> None:
        self._sample: Image | None = None
        self._since_ns = 0

    def since(self, image: Image, now_ns: int) -> int:
        """The time of the first of the pictures that are all like this one."""
        sample = image[::8, ::8]
        if self._sample is None or not _alike(sample, self._sample):
            self._sample, self._since_ns = sample.copy(), now_ns
        return self._since_ns


def _alike(image: Image, other: Image) -> bool:
    if image.shape != other.shape:
        return False
    difference = np.abs(image.astype(np.int16) - other)
    return int(difference.max(initial=0)) <= STILL_LEVELS
