"""Place moving objects on the street, in endless columns.

Number i of a column is at `(i + jitter(i)) * gap + speed * t`, so the visible objects depend only on the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np

from stream_seg.synth import pedestrians, vehicles
from stream_seg.synth.camera import drive_z, point_beside
from stream_seg.synth.canvas import DrawItem
from stream_seg.synth.surfaces import Colour, rng

SIGHT_M = 170.0


class Column(NamedTuple):
    """A column of objects: gap, speed (m/s, along Z), position across (mean, deviation), share of occupied places."""

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


class Mover(NamedTuple):
    """An object of a column: Z at time 0, position across the road, appearance, time offset of its stride, seconds."""

    home: float
    u: float
    look: pedestrians.Appearance
    kind: vehicles.Kind
    paint: Colour
    time_offset: float


@lru_cache(maxsize=2048)
def _mover(seed: int, column: int, i: int) -> Mover | None:
    """Return number i of a column, None for an empty place."""
    random, config = rng(seed, 42, column, i), COLUMNS[column]
    if random.random() > config.share:
        return None
    home = (i + random.uniform(0.1, 0.9)) * config.gap_m
    u = config.across[0] + config.across[1] * random.standard_normal()
    return Mover(home, u, pedestrians.Appearance.random(random), *vehicles.choose_model(random), random.uniform(0, 9))


def _leading_car(seed: int, t: float, step: float) -> DrawItem:
    """Return the car ahead in the same lane, at a varying distance; it moves on even if the camera is static."""
    random = rng(seed, 43)
    kind, paint = vehicles.choose_model(random)
    phase = random.uniform(0, 2 * np.pi)
    ways = [drive_z(time, seed) + 20 + 7 * math.sin(0.35 * time + phase) for time in (t, t - step)]
    place, before = (point_beside(-1.6, z, seed) for z in ways)
    return place[1], partial(vehicles.draw_vehicle, kind=kind, paint=paint, place=place, before=before)


def list_moving_items(seed: int, t: float, step: float, from_z: float) -> Iterator[DrawItem]:
    """Yield moving objects in sight of `from_z` at `t` seconds, with their position `step` seconds earlier."""
    yield _leading_car(seed, t, step)
    for number, column in enumerate(COLUMNS):
        first = math.floor((from_z - column.speed * t) / column.gap_m) - 1
        for i in range(first, first + math.ceil(column.sight_m / column.gap_m) + 1):
            mover = _mover(seed, number, i)
            if mover is None:
                continue
            place, before = (point_beside(mover.u, mover.home + column.speed * time, seed) for time in (t, t - step))
            facing = column.speed < 0
            if column.kind == "car":
                draw = partial(vehicles.draw_vehicle, kind=mover.kind, paint=mover.paint, oncoming=facing)
            else:
                times = t + mover.time_offset, t - step + mover.time_offset
                draw = partial(pedestrians.draw_person, label=column.kind, look=mover.look, times=times, facing=facing)
            yield place[1], partial(draw, place=place, before=before)
