"""What moves on the street, in endless columns.

Number i of a column stands at `(i + jitter(i)) * gap + speed * t`: who is in sight follows from the time alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np

from stream_seg.synth import pedestrians as figures
from stream_seg.synth import vehicles
from stream_seg.synth.camera import MOVES, beside
from stream_seg.synth.canvas import Thing
from stream_seg.synth.texture import Colour, rng

SIGHT_M = 170.0


@dataclass(frozen=True)
class Column:
    """Things that follow one another: their distance, speed (m/s, along Z), place across (mean, deviation), share."""

    kind: Literal["car", "pedestrian", "bicyclist"]
    gap_m: float
    speed: float
    across: tuple[float, float]
    share: float
    sight_m: float


COLUMNS: tuple[Column, ...] = (
    Column("car", 34, -10.5, (1.65, 0.1), 0.7, SIGHT_M),
    Column("bicyclist", 62, 4.6, (-2.85, 0.12), 0.8, 120),
    Column("bicyclist", 95, -4.8, (2.95, 0.1), 0.6, 120),
    Column("pedestrian", 13, -1.35, (-6.5, 0.35), 0.7, 90),
    Column("pedestrian", 17, 1.25, (-6.9, 0.3), 0.7, 90),
    Column("pedestrian", 14, -1.3, (6.6, 0.4), 0.7, 90),
    Column("pedestrian", 19, 1.4, (6.9, 0.3), 0.7, 90),
)


@dataclass(frozen=True)
class Mover:
    """One of a column: Z at time 0, place across the road, looks, and when its stride began, seconds."""

    home: float
    u: float
    look: figures.Look
    kind: vehicles.Kind
    paint: Colour
    since: float


@lru_cache(maxsize=2048)
def _mover(seed: int, column: int, i: int) -> Mover | None:
    """Number i of a column, or None: its place is empty."""
    random, what = rng(seed, 42, column, i), COLUMNS[column]
    if random.random() > what.share:
        return None
    home = (i + random.uniform(0.1, 0.9)) * what.gap_m
    u = what.across[0] + what.across[1] * random.standard_normal()
    return Mover(home, u, figures.Look.drawn(random), *vehicles.model(random), random.uniform(0, 9))


def _leader(seed: int, t: float, step: float) -> Thing:
    """The car ahead in the own lane, now nearer and now farther; it drives on where the camera stands still."""
    random = rng(seed, 43)
    kind, paint = vehicles.model(random)
    phase = random.uniform(0, 2 * np.pi)
    ways = [MOVES["drive"](time, seed)[1] + 20 + 7 * math.sin(0.35 * time + phase) for time in (t, t - step)]
    place, before = (beside(-1.6, z, seed) for z in ways)
    return place[1], partial(vehicles.draw_vehicle, kind=kind, paint=paint, place=place, before=before)


def moving(seed: int, t: float, step: float, from_z: float) -> Iterator[Thing]:
    """All that moves within sight of `from_z` at `t` seconds; it stood elsewhere `step` seconds ago."""
    yield _leader(seed, t, step)
    for number, column in enumerate(COLUMNS):
        first = math.floor((from_z - column.speed * t) / column.gap_m) - 1
        for i in range(first, first + math.ceil(column.sight_m / column.gap_m) + 1):
            mover = _mover(seed, number, i)
            if mover is None:
                continue
            place, before = (beside(mover.u, mover.home + column.speed * time, seed) for time in (t, t - step))
            facing = column.speed < 0
            if column.kind == "car":
                car = partial(vehicles.draw_vehicle, kind=mover.kind, paint=mover.paint, oncoming=facing)
                yield place[1], partial(car, place=place, before=before)
            else:
                times = t + mover.since, t - step + mover.since
                figure = partial(figures.draw_figure, label=column.kind, look=mover.look, times=times, facing=facing)
                yield place[1], partial(figure, place=place, before=before)
