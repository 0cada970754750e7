"""Retry delays and detection of frozen video, without a clock, a thread or a socket."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stream_seg.types import Image

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0
NOISE_LEVELS = 1
"""Gray levels by which equal images may differ: a decoder's rounding. The noise of any sensor is larger."""


class Backoff:
    """Delays between attempts to connect: from a quarter of a second, doubled, up to half a minute.

    Shorter delays are random in their upper half, so that cameras that failed together do not return together. The
    longest varies by a twentieth only, which is enough for that, and keeps an hour of outage below 130 attempts.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    def next_wait_s(self) -> float:
        """Count a failed attempt or a lost connection. Return the seconds to wait before the next attempt."""
        wait_s = FIRST_WAIT_S * 2.0 ** min(self._failures, 16)
        self._failures += 1
        share = 0.5 if wait_s < LONGEST_WAIT_S else 0.05
        return min(wait_s, LONGEST_WAIT_S) * (1 - share * self._random())

    def reset(self) -> None:
        """Begin with short delays again: the source was connected for a while."""
        self._failures = 0


class FreezeDetector:
    """Detect that a stream repeats one image, from every eighth pixel of every eighth line."""

    def __init__(self) -> None:
        self._sample: Image | None = None
        self._since_ns = 0

    def unchanged_since_ns(self, image: Image, now_ns: int) -> int:
        """Return the time of the first of the latest images that all equal this one."""
        sample = image[::8, ::8]
        if self._sample is None or not _is_same(sample, self._sample):
            self._sample, self._since_ns = sample.copy(), now_ns
        return self._since_ns


def _is_same(image: Image, other: Image) -> bool:
    if image.shape != other.shape:
        return False
    difference = np.abs(image.astype(np.int16) - other)
    return int(difference.max(initial=0)) <= NOISE_LEVELS
