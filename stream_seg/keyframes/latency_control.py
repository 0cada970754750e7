"""Quality levels of a `segment` stage with `target_ms`: how each works, and its cost on this machine at the moment.

Level 0 is the configured quality. Next, key frames become rarer, which costs least: on CamVid val every second frame
0.8 mIoU, every fifth 3.2. Then a smaller engine computes them: the road network at half the size needs a quarter of the
time and has 73.4 mIoU instead of 79.2 on CamVid val (`stream-seg eval --size 192x320`).
"""

from __future__ import annotations

import time
import timeit
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from stream_seg.backends.engine import Engine
from stream_seg.frame import Age, QualityChange, Semantic
from stream_seg.keyframes.keyframes import Every
from stream_seg.types import Image

Defer: TypeAlias = Callable[[Image, Engine], Callable[[], Semantic]]
"""Takes an image and an engine, and returns the function that runs it."""
LONGER_INTERVALS = (2, 3, 5)
"""Key-frame intervals of the levels at full size, those longer than the configured one."""
SMALL_ENGINE_INTERVALS = (5, 10)
"""Key-frame intervals of the levels with the smaller engine."""
AUTO_INTERVAL = 4
"""Average interval of `auto` on a drive, for the order of the levels."""
RECENT = 5
"""Latest inferences that tell the current speed of the machine: the slowest of them counts."""
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


@dataclass(frozen=True)
class QualityLevel:
    """Frames from one key frame to the next, and the index of the engine."""

    every: Every
    engine: int

    @property
    def interval(self) -> int:
        """Average frames from one key frame to the next."""
        return AUTO_INTERVAL if self.every == "auto" else self.every


def quality_levels(every: Every, *, engines: int) -> tuple[QualityLevel, ...]:
    """Return the levels from the best, the configured one, to the cheapest. `engines`: 2 with a smaller engine."""
    best = QualityLevel(every, 0)
    rarer = [QualityLevel(k, 0) for k in LONGER_INTERVALS if k > best.interval]
    smaller = [QualityLevel(k, 1) for k in SMALL_ENGINE_INTERVALS if k >= best.interval] or [QualityLevel(every, 1)]
    return (best, *rarer, *(smaller if engines > 1 else ()))


@dataclass
class QualityLadder:
    """Choose the best of `levels` quality levels, 0 to `levels` - 1, that keeps frames younger than a target.

    Pure and without a clock: ages of finished frames go in, a level comes out. The level goes down at the third frame
    of the last thirty that is older than nine tenths of the target. It goes up when the last frames, all but one, would
    have stayed below a lower limit on the better level, estimated from the cost of either level. A climb that fails at
    once makes the next one harder: it waits longer, and the limit is lower. This wears off with time, or when a climb
    holds.
    """

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


class LatencyControl:
    """Choose the quality level by the frame ages that the outputs report; without a target there is one level."""

    def __init__(self, engines: Sequence[Engine], *, every: Every, target_ms: float | None, defer: Defer) -> None:
        self._engines, self._defer = engines, defer
        best = (QualityLevel(every, 0),)
        self._levels = best if target_ms is None else quality_levels(every, engines=len(engines))
        self._ladder = QualityLadder(len(self._levels), target_ms or 0.0)
        self._idle_ms = [_measure_idle_ms(engine) for engine in engines]
        self._slowdowns: deque[float] = deque([1.0], maxlen=RECENT)  # written by the thread that runs an engine

    @property
    def quality_level(self) -> int:
        """Current quality level; 0 is full quality."""
        return self._ladder.level

    @property
    def every(self) -> Every:
        """Frames from one key frame to the next, at the current level."""
        return self._levels[self.quality_level].every

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network's input, at the current level."""
        return self._engines[self._levels[self.quality_level].engine].spec.size

    def adjust(self, ages: Sequence[Age]) -> QualityChange | None:
        """Adjust the level to the ages of finished frames. Return the reason of a change."""
        slowdown = max(tuple(self._slowdowns))
        costs_ms = [self._idle_ms[level.engine] * slowdown / level.interval for level in self._levels]
        changes = [self._ladder.update(age.quality_level, age.ms, costs_ms=costs_ms) for age in ages]
        return next((change for change in reversed(changes) if change), None)

    def infer(self, image: Image) -> Callable[[], Semantic]:
        """Return the function that runs the engine of the current level on an image, and measures its time."""
        index = self._levels[self.quality_level].engine
        run = self._defer(image, self._engines[index])

        def run_timed() -> Semantic:
            start_s = time.perf_counter()
            semantic = run()
            self._slowdowns.append((time.perf_counter() - start_s) * 1000 / self._idle_ms[index])
            return semantic

        return run_timed


def _measure_idle_ms(engine: Engine) -> float:
    """Return the time of one inference without other load, the best of three."""
    image = np.zeros((1, *engine.spec.size, 3), np.uint8)
    return max(min(timeit.repeat(lambda: engine.infer(image), number=1, repeat=3)) * 1000, 1e-3)
