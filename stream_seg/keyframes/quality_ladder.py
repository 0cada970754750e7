"""Holding a latency: which level of a ladder of ever cheaper ways to work is the best that keeps frames young enough.

Pure and without a clock: ages of finished frames go in, a level comes out. Down at the third frame of the last thirty
that is older than nine tenths of the target. Up when, but for one, the last frames would have stayed under a lower bar
on the better level, told by what a frame waits for on either. A climb that fails at once makes the next one harder: it
waits longer, and the bar is lower. That is forgotten in time, or when a climb holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from stream_seg.frame import QualityChange

WINDOW, LATE = 30, 3
HIGH, LOW, LOWER = 0.9, 0.85, 0.08
"""Shares of the target: above the first a frame is late, the second is the bar of a climb, which every failure lowers
by the third. Between bar and HIGH nothing happens."""
PATIENCE = 20
"""Frames on a level before the next climb, two thirds of a second at 30 frames/s; as many again for every failure."""
MOST_FAILURES = 2
"""More are not counted, so that after the worst of times two seconds of good ones suffice."""
WARMING = 10
"""Frames at the start that are not counted: they waited for engines to be opened and caches to fill."""
PROVEN, FORGOTTEN = 60, 150
"""Frames after which a climb has held, and after which one failure is forgotten."""


@dataclass
class Ladder:
    """Levels 0 (best) to `levels` - 1 (cheapest)."""

    levels: int
    target_ms: float
    level: int = 0
    failures: int = 0
    _ages: deque[float] = field(default_factory=lambda: deque(maxlen=PATIENCE * (1 + MOST_FAILURES)))
    _warming: int = WARMING
    _seen: int = 0  # frames of the present level
    _climbed: bool = False  # the last change was a climb

    def heard(self, level: int, age_ms: float, *, costs_ms: Sequence[float]) -> QualityChange | None:
        """A frame that was made on `level` is done at this age. `costs_ms`: what a frame waits for on each level, as last
        measured; only differences count. Says why, where `level` changed; frames of other levels are ignored."""
        if self._warming:
            self._warming -= 1
            return None
        if level != self.level:
            return None
        self._ages.append(age_ms)
        self._seen += 1
        if self._climbed and self._seen == PROVEN:
            self.failures = 0
        elif self._seen % FORGOTTEN == 0:
            self.failures = max(0, self.failures - 1)
        late = sum(age > HIGH * self.target_ms for age in list(self._ages)[-WINDOW:])
        if late >= LATE and self.level < self.levels - 1:
            if self._climbed and self._seen < PROVEN:
                self.failures = min(self.failures + 1, MOST_FAILURES)
            return self._go(self.level + 1)
        patience = PATIENCE * (1 + self.failures)
        if self.level and len(self._ages) >= patience:
            usual = sorted(list(self._ages)[-patience:])[-2] - costs_ms[self.level]
            bar = (LOW - LOWER * self.failures) * self.target_ms
            for better in range(self.level):
                if usual + costs_ms[better] < bar:
                    return self._go(better)
        return None

    def _go(self, level: int) -> QualityChange:
        self._climbed = level < self.level
        self.level, self._seen = level, 0
        self._ages.clear()
        return "spare" if self._climbed else "slow"
