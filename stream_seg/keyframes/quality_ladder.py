"""Holding a latency: which rung of a ladder of ever cheaper ways to work is the best that keeps frames young enough.

Pure and without a clock: ages of finished frames go in, a rung comes out. Down at the third frame of the last thirty
that is older than nine tenths of the target. Up when, but for one, the last frames would have stayed under a lower bar
on the better rung, told by what a frame waits for on either. A climb that fails at once makes the next one harder: it
waits longer, and the bar is lower. That is forgotten in time, or when a climb holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Change: TypeAlias = Literal["slow", "spare"]
"""Why the rung changed: frames came too late, or there was time to spare."""

WINDOW, LATE = 30, 3
HIGH, LOW, LOWER = 0.9, 0.85, 0.08
"""Shares of the target: above the first a frame is late, the second is the bar of a climb, which every failure lowers
by the third. Between bar and HIGH nothing happens."""
PATIENCE = 20
"""Frames on a rung before the next climb, two thirds of a second at 30 frames/s; as many again for every failure."""
MOST_FAILURES = 2
"""More are not counted, so that after the worst of times two seconds of good ones suffice."""
WARMING = 10
"""Frames at the start that are not counted: they waited for engines to be opened and caches to fill."""
PROVEN, FORGOTTEN = 60, 150
"""Frames after which a climb has held, and after which one failure is forgotten."""


@dataclass
class Ladder:
    """Rungs 0 (best) to `rungs` - 1 (cheapest)."""

    rungs: int
    target_ms: float
    rung: int = 0
    failures: int = 0
    _ages: deque[float] = field(default_factory=lambda: deque(maxlen=PATIENCE * (1 + MOST_FAILURES)))
    _warming: int = WARMING
    _seen: int = 0  # frames of the present rung
    _climbed: bool = False  # the last change was a climb

    def heard(self, rung: int, age_ms: float, *, costs_ms: Sequence[float]) -> Change | None:
        """A frame that was made on `rung` is done at this age. `costs_ms`: what a frame waits for on each rung, as last
        measured; only differences count. Says why, where `rung` changed; frames of other rungs are ignored."""
        if self._warming:
            self._warming -= 1
            return None
        if rung != self.rung:
            return None
        self._ages.append(age_ms)
        self._seen += 1
        if self._climbed and self._seen == PROVEN:
            self.failures = 0
        elif self._seen % FORGOTTEN == 0:
            self.failures = max(0, self.failures - 1)
        late = sum(age > HIGH * self.target_ms for age in list(self._ages)[-WINDOW:])
        if late >= LATE and self.rung < self.rungs - 1:
            if self._climbed and self._seen < PROVEN:
                self.failures = min(self.failures + 1, MOST_FAILURES)
            return self._go(self.rung + 1)
        patience = PATIENCE * (1 + self.failures)
        if self.rung and len(self._ages) >= patience:
            usual = sorted(list(self._ages)[-patience:])[-2] - costs_ms[self.rung]
            bar = (LOW - LOWER * self.failures) * self.target_ms
            for better in range(self.rung):
                if usual + costs_ms[better] < bar:
                    return self._go(better)
        return None

    def _go(self, rung: int) -> Change:
        self._climbed = rung < self.rung
        self.rung, self._seen = rung, 0
        self._ages.clear()
        return "spare" if self._climbed else "slow"
