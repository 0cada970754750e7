"""Quality levels of a `segment` stage with `target_ms`: how each works, and its cost on this machine at the moment.

Level 0 is the configured quality. Next, key frames become rarer, which costs least: on CamVid val every second frame
0.5 mIoU, every fifth 2.9. Then a smaller engine computes them: the road network at half the size needs a quarter of the
time and has 73.4 mIoU instead of 79.2 on CamVid val (`stream-seg eval --size 192x320`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stream_seg.backends.engine import Engine
from stream_seg.frame import Age, QualityChange, Semantic
from stream_seg.keyframes.keyframes import Every
from stream_seg.keyframes.quality_ladder import QualityLadder
from stream_seg.types import Image

LONGER_INTERVALS = (2, 3, 5)
"""Key-frame intervals of the levels at full size, those longer than the configured one."""
SMALL_ENGINE_INTERVALS = (5, 10)
"""Key-frame intervals of the levels with the smaller engine."""
AUTO_INTERVAL = 4
"""Average interval of `auto` on a drive, for the order of the levels."""
RECENT = 5
"""Latest inferences that tell the current speed of the machine: the slowest of them counts."""


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


class LatencyControl:
    """Choose the quality level by the frame ages that the outputs report; without a target there is one level.

    `defer` takes an image and an engine and returns the function that runs it.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        every: Every,
        target_ms: float | None,
        defer: Callable[[Image, Engine], Callable[[], Semantic]],
    ) -> None:
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
    image, times_s = np.zeros((1, *engine.spec.size, 3), np.uint8), []
    for _ in range(3):
        start_s = time.perf_counter()
        engine.infer(image)
        times_s.append(time.perf_counter() - start_s)
    return max(min(times_s) * 1000, 1e-3)
