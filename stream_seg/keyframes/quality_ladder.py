"""Choose the best of several quality levels that keeps frames younger than a target.

Pure and without a clock: ages of finished frames go in, a level comes out. The level goes down at the third frame of
the last thirty that is older than nine tenths of the target. It goes up when the last frames, all but one, would have
stayed below a lower limit on the better level, estimated from the cost of either level. A climb that fails at once
makes the next one harder: it waits longer, and the limit is lower. This wears off with time, or when a climb holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from stream_seg.frame import QualityChange

WINDOW_FRAMES, LATE_FRAMES = 30, 3
LATE_SHARE, CLIMB_SHARE, FAILURE_SHARE = 0.9, 0.85, 0.08
"""Shares of the target: above the first a frame is late; the second is the limit of a climb, which every failure lowers
by the third. Between the limit and LATE_SHARE the level stays."""
CLIMB_FRAMES = 20
"""Frames on a level before the next climb, two thirds of a second at 30 frames/s; as many again for every failure."""
MAX_FAILURES = 2
"""Further failures do not count, so that two seconds of young frames always suffice."""
WARMUP_FRAMES = 10
"""First frames, which are ignored: they waited for engines to be opened and caches to fill."""
PROVEN_FRAMES, FORGET_FRAMES = 60, 150
"""Frames after which a climb has held, and after which one failure is forgotten."""


@dataclass
class QualityLadder:
    """Levels 0 (best) to `levels` - 1 (cheapest)."""

    levels: int
    target_ms: float
    level: int = 0
    failures: int = 0
    _ages: deque[float] = field(default_factory=lambda: deque(maxlen=CLIMB_FRAMES * (1 + MAX_FAILURES)))
    _warmup: int = WARMUP_FRAMES
    _frames: int = 0  # on the current level
    _climbed: bool = False  # the last change was a climb

    def update(self, level: int, age_ms: float, *, costs_ms: Sequence[float]) -> QualityChange | None:
        """Take the age of a finished frame that was segmented on `level`. Return the reason if the level changes.

        `costs_ms` is the time that a frame waits for on each level, as last measured; only differences count. Frames of
        other levels than the current one are ignored.
        """
        if self._warmup:
            self._warmup -= 1
            return None
        if level != self.level:
            return None
        self._ages.append(age_ms)
        self._frames += 1
        if self._climbed and self._frames == PROVEN_FRAMES:
            self.failures = 0
        elif self._frames % FORGET_FRAMES == 0:
            self.failures = max(0, self.failures - 1)
        late = sum(age > LATE_SHARE * self.target_ms for age in list(self._ages)[-WINDOW_FRAMES:])
        if late >= LATE_FRAMES and self.level < self.levels - 1:
            if self._climbed and self._frames < PROVEN_FRAMES:
                self.failures = min(self.failures + 1, MAX_FAILURES)
            return self._change_to(self.level + 1)
        required = CLIMB_FRAMES * (1 + self.failures)
        if self.level and len(self._ages) >= required:
            base_ms = sorted(list(self._ages)[-required:])[-2] - costs_ms[self.level]
            limit_ms = (CLIMB_SHARE - FAILURE_SHARE * self.failures) * self.target_ms
            for better in range(self.level):
                if base_ms + costs_ms[better] < limit_ms:
                    return self._change_to(better)
        return None

    def _change_to(self, level: int) -> QualityChange:
        self._climbed = level < self.level
        self.level, self._frames = level, 0
        self._ages.clear()
        return "spare" if self._climbed else "slow"
