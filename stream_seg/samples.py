"""The last many measurements of one quantity, and what is said of them."""

from __future__ import annotations

import numpy as np

KEPT = 65536
"""36 minutes at 30 frames/s: what percentiles are taken of."""


class Samples:
    """A ring of the last `KEPT` numbers. One thread adds; any may ask."""

    def __init__(self) -> None:
        self._ring = np.zeros(KEPT, np.float32)
        self.count = 0

    def add(self, value: float) -> None:
        """Note one measurement."""
        self._ring[self.count % KEPT] = value
        self.count += 1

    def percentile(self, share: float) -> float:
        """The value below which `share` percent of those kept lie; 0 without any."""
        return float(np.percentile(self._ring[: min(self.count, KEPT)], share)) if self.count else 0.0
