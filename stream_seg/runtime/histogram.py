"""Measurements of one quantity: percentiles of the latest values, and a histogram of all values."""

from __future__ import annotations

import time
from bisect import bisect_left

import numpy as np

RING_SIZE = 65536
"""Number of latest values that percentiles are computed from: 36 minutes at 30 frames/s."""
BOUNDS_MS = (1, 2.5, 5, 10, 20, 33, 50, 66, 100, 150, 200, 250, 500, 1000, 2500, 5000, 10000)
"""Upper bounds of the histogram; dense around one, one and a half, two and three frame intervals at 30 frames/s."""


class Samples:
    """Values in milliseconds. One thread adds; any thread may read."""

    def __init__(self) -> None:
        self._ring = np.zeros(RING_SIZE, np.float32)
        self._counts = [0] * (len(BOUNDS_MS) + 1)
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        """Add one measurement."""
        self._ring[self.count % RING_SIZE] = value
        self._counts[bisect_left(BOUNDS_MS, value)] += 1
        self.total += value
        self.count += 1

    def percentile(self, percent: float) -> float:
        """Return the percentile of the latest RING_SIZE values; 0 without any value."""
        return float(np.percentile(self._ring[: min(self.count, RING_SIZE)], percent)) if self.count else 0.0

    def at_most(self) -> list[int]:
        """Return the number of values at or below each of BOUNDS_MS, then the number of all values."""
        return [int(number) for number in np.cumsum(self._counts)]


class Ages:
    """Ages of the frames of one stream at the time when an output finished them."""

    def __init__(self, deadline_ms: float) -> None:
        self._deadline_ms = deadline_ms
        self.samples = Samples()
        self.late = 0  # frames older than the deadline
        self.last_s = 0.0  # Unix time at which the last frame was finished; 0 before the first

    def add(self, age_ms: float) -> None:
        """Add the age of a frame that an output has just finished."""
        self.samples.add(age_ms)
        self.late += age_ms > self._deadline_ms
        self.last_s = time.time()
