"""The ladder of a `segment` stage: what each level does, and what it costs on this machine at this moment.

Level 0 is what was asked for. Then key frames grow rarer, which costs least: on CamVid val every second one 0.5 mIoU,
every fifth 2.9. Then a smaller engine computes them: the road network at half the size needs a quarter of the time and
has 73.4 mIoU instead of 79.2 on CamVid val (`stream-seg eval --size 192x320`).
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
from stream_seg.keyframes.quality_ladder import Ladder
from stream_seg.types import Image

RARER = (2, 3, 5)
"""Key-frame intervals of the levels at full size, as far as they are longer than the one asked for."""
SMALLER = (5, 10)
"""And of the levels with the smaller engine."""
USUAL = 4
"""What `auto` comes to on a drive, for the order of the levels."""
LATELY = 5
"""Pictures that say how fast the machine is now: the slowest of them counts."""


@dataclass(frozen=True)
class QualityLevel:
    """A way to work: frames from key frame to key frame, and the number of the engine."""

    every: Every
    engine: int

    @property
    def interval(self) -> int:
        """In frames."""
        return USUAL if self.every == "auto" else self.every


def quality_levels(every: Every, *, engines: int) -> tuple[QualityLevel, ...]:
    """From the best to the cheapest; the first is what was asked for. `engines`: 2 where there is a smaller one."""
    asked = QualityLevel(every, 0)
    rarer = [QualityLevel(k, 0) for k in RARER if k > asked.interval]
    smaller = [QualityLevel(k, 1) for k in SMALLER if k >= asked.interval] or [QualityLevel(every, 1)]
    return (asked, *rarer, *(smaller if engines > 1 else ()))


class Steering:
    """The level that a stage is on, moved by the ages that the outputs tell; without a target there is one level.

    `ask` takes a picture and an engine and gives what asks the engine (`keys.Look`).
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        every: Every,
        target_ms: float | None,
        ask: Callable[[Image, Engine], Callable[[], Semantic]],
    ) -> None:
        self._engines, self._ask = engines, ask
        self._levels = (
            quality_levels(every, engines=len(engines)) if target_ms is not None else (QualityLevel(every, 0),)
        )
        self._ladder = Ladder(len(self._levels), target_ms or 0.0)
        self._idle_ms = [_idle_ms(engine) for engine in engines]
        self._slowed: deque[float] = deque([1.0], maxlen=LATELY)  # written by whoever runs an engine

    @property
    def quality_level(self) -> int:
        """Its number; 0 is the best."""
        return self._ladder.level

    @property
    def every(self) -> Every:
        """Frames from key frame to key frame, on this level."""
        return self._levels[self.quality_level].every

    def hear(self, ages: Sequence[Age]) -> QualityChange | None:
        """Take what the outputs tell. Says why, where the level changed."""
        slowed = max(tuple(self._slowed))
        costs_ms = [self._idle_ms[level.engine] * slowed / level.interval for level in self._levels]
        changes = [self._ladder.heard(age.quality_level, age.ms, costs_ms=costs_ms) for age in ages]
        return next((change for change in reversed(changes) if change), None)

    def look(self, image: Image) -> Callable[[], Semantic]:
        """A `keys.Look` with the engine of this level; how long it takes is noted."""
        number = self._levels[self.quality_level].engine
        ask = self._ask(image, self._engines[number])

        def timed() -> Semantic:
            began = time.perf_counter()
            said = ask()
            self._slowed.append((time.perf_counter() - began) * 1000 / self._idle_ms[number])
            return said

        return timed


def _idle_ms(engine: Engine) -> float:
    """The time of one picture, at the start; the best of three."""
    picture, took = np.zeros((1, *engine.spec.size, 3), np.uint8), []
    for _ in range(3):
        began = time.perf_counter()
        engine.infer(picture)
        took.append(time.perf_counter() - began)
    return max(min(took) * 1000, 1e-3)
