"""What was measured of one quantity: percentiles of the last many values, and a histogram of all of them."""

from __future__ import annotations

import time
from bisect import bisect_left

import numpy as np

KEPT = 65536
"""36 minutes at 30 frames/s: what percentiles are taken of."""
BOUNDS_MS = (1, 2.5, 5, 10, 20, 33, 50, 66, 100, 150, 200, 250, 500, 1000, 2500, 5000, 10000)
"""Upper bounds of the histogram; dense around one, one and a half, two and three frames at 30 frames/s."""


class Samples:
    """Milliseconds. One thread adds; any may ask."""

    def __init__(self) -> None:
        self._ring = np.zeros(KEPT, np.float32)
        self._counts = [0] * (len(BOUNDS_MS) + 1)
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        """Note one measurement."""
        self._ring[self.count % KEPT] = value
        self._counts[bisect_left(BOUNDS_MS, value)] += 1
        self.total += value
        self.count += 1

    def percentile(self, share: float) -> float:
        """The value below which `share` percent of those kept lie; 0 without any."""
        return float(np.percentile(self._ring[: min(self.count, KEPT)], share)) if self.count else 0.0

    def at_most(self) -> list[int]:
        """How many values of all were at most each of BOUNDS_MS, and how many there were."""
        return [int(number) for number in np.cumsum(self._counts)]


class Ages:
    """How old the frames of one stream were when an output had dealt with them."""

    def __init__(self, deadline_ms: float) -> None:
        self._deadline_ms = deadline_ms
        self.samples = Samples()
        self.late = 0
        self.last_s = 0.0  # when the last one was done, in seconds of the Unix epoch; 0 before the first

    def add(self, age_ms: float) -> None:
        """Note one frame."""
        self.samples.add(age_ms)
        self.late += age_ms > self._deadline_ms
        self.last_s = time.time()
