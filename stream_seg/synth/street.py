"""Place objects along an endless street; they depend only on the seed and the position.

The street has lots of 10 m on either side; six lots form a block, which is a terrace, houses or a park. Moving objects
form endless columns: number i of one is at `(i + jitter(i)) * gap + speed * t`, so the visible ones depend on the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np

from stream_seg.datasets.palettes import CAMVID
from stream_seg.synth import houses, pedestrians, roadside, vehicles
from stream_seg.synth.backdrop import PAVEMENT_M, choose_weather
from stream_seg.synth.camera import Camera, Place, drive_z, point_beside
from stream_seg.synth.canvas import Canvas, DrawItem, Paint
from stream_seg.synth.surfaces import Mesh, Texture, rng

SIGHT_M = 170.0
LOT_M = 10.0
KERB_SIGHT_M = 120.0


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


def _draw_upright(texture: Texture, left: Place, right: Place, tall: float, label: str, light: float) -> Paint:
    """Return the function that paints a texture above the line from `left` to `right` on the ground."""
    (x0, z0), (x1, z1) = left, right
    corners = np.array([[x0, tall, z0], [x1, tall, z1], [x0, 0, z0]])
    return partial(Canvas.draw_texture, texture=texture, corners=corners, label=CAMVID.index(label), light=light)


def _draw_tree(texture: Texture, place: Place, wide: float, tall: float, light: float) -> Paint:
    x, z = place
    return _draw_upright(texture, (x - wide / 2, z), (x + wide / 2, z), tall, "tree", light)


def _draw_mesh(mesh: Mesh, place: Place, label: str) -> Paint:
    return partial(Canvas.draw_mesh, mesh=mesh, at=np.array([place[0], 0.0, place[1]]), label=CAMVID.index(label))


def _light(seed: int, side: int) -> float:
    """Return the brightness of the fronts of a side: those on the side of the sun face away from it."""
    mood, sun_side = choose_weather(seed)
    return 1.0 - mood.sun * 0.55 if side == sun_side else 1.0 + mood.sun * 0.45


def _list_lot_items(seed: int, side: int, number: int) -> Iterator[DrawItem]:
    """Yield the house of a lot, its garden or a part of a park; `side` is -1 for left, 1 for right."""
    random = rng(seed, 40, side, number)
    kind = str(rng(seed, 41, side, number // 6).choice(["terrace", "terrace", "houses", "park"]))
    light = _light(seed, side)
    z, edge = number * LOT_M, PAVEMENT_M + 0.2
    facade = houses.make_facades(seed)[random.integers(houses.FACADES)]
    tree = roadside.make_tree(seed, int(random.integers(roadside.TREES)))

    def draw_along(texture: Texture, u: float, tall: float, label: str, light: float) -> Paint:
        ends = point_beside(side * u, z, seed), point_beside(side * u, z + LOT_M, seed)
        return _draw_upright(texture, *ends, tall, label, light)

    if kind == "park":
        for u in random.uniform(9, 24, 1 + number % 2):
            place = point_beside(side * u, z + random.uniform(0, 9.5), seed)
            size = random.uniform(0.8, 1.3)
            yield z + LOT_M + u / 10, _draw_tree(tree, place, 6 * size, 8 * size, light)
        yield z + 26, draw_along(roadside.make_hedge(seed), 24, 3.2, "tree", light * 0.8)
        yield z + LOT_M, draw_along(roadside.make_fences()[0], edge, 1.2, "fence", 1.0)
        return
    u = side * (edge if kind == "terrace" else edge + 4)
    near, far = point_beside(u, z, seed), point_beside(u, z + (LOT_M if kind == "terrace" else 8.5), seed)
    shell = houses.make_shell(facade, near, far, side=side, light=light)
    yield z + LOT_M + 1.1, _draw_mesh(shell, (0.0, 0.0), "building")
    front = (near, far) if side < 0 else (far, near)  # from the left as seen from the road
    yield z + LOT_M + 1, _draw_upright(facade.texture, *front, facade.tall_m, "building", light)
    if kind == "houses":
        boundary = int(random.integers(4))
        if boundary < 2:
            yield z + LOT_M, draw_along(roadside.make_fences()[boundary], edge, 1.25, "fence", light)
        else:
            yield z + LOT_M, draw_along(roadside.make_hedge(seed), edge, 1.7, "tree", light)
        if random.random() < 0.5:
            place = point_beside(side * (edge + 1.6), z + 9, seed)
            yield z + LOT_M + 0.5, _draw_tree(tree, place, 4.6, 6.2, light)


def _list_kerb_items(seed: int, side: int, number: int) -> Iterator[DrawItem]:
    """Yield street trees, lamps, signs, bollards and parked cars of a lot."""
    random = rng(seed, 44, side, number)
    tree = roadside.make_tree(seed, int(random.integers(roadside.TREES)))
    z, light = number * LOT_M, _light(seed, side)
    if random.random() < 0.16:
        place = point_beside(side * 7.2, z + 5, seed)
        yield place[1], _draw_tree(tree, place, 5.2, 7.4, light)
    if number % 3 == (0 if side < 0 else 1):
        yield z + 2, _draw_mesh(roadside.make_lamp(side), point_beside(side * 5.65, z + 2, seed), "pole")
    if random.random() < 0.3:
        face = str(random.choice(list(roadside.SIGNS)))
        place = point_beside(side * 5.75, z + 7, seed)
        yield z + 7.01, _draw_mesh(roadside.SIGN_POST, place, "pole")
        yield z + 7, _draw_mesh(roadside.make_sign(face, back=side > 0), place, "sign")
    if random.random() < 0.15:
        for step in range(4):
            place = point_beside(side * 5.6, z + 1 + 2 * step, seed)
            yield place[1], _draw_mesh(roadside.BOLLARD, place, "pole")
    for slot in (0.2, 5.2):
        if random.random() < 0.42 and number % 7 > 1:
            kind, paint = vehicles.choose_model(random)
            place = point_beside(side * 4.25 + random.normal(0, 0.08), z + slot, seed)
            draw = partial(vehicles.draw_vehicle, kind=kind, paint=paint, way=(place, place), light=light)
            yield place[1], partial(draw, oncoming=side > 0)


@lru_cache(maxsize=1024)
def _fixed_items(kerb: bool, seed: int, side: int, number: int) -> tuple[DrawItem, ...]:
    return tuple((_list_kerb_items if kerb else _list_lot_items)(seed, side, number))


@lru_cache(maxsize=2048)
def _mover(seed: int, column: int, i: int) -> tuple[float, float, partial[None]] | None:
    """Return number i of a column: Z at time 0, position across, paint function. None for an empty place."""
    random, config = rng(seed, 42, column, i), COLUMNS[column]
    if random.random() > config.share:
        return None
    home = (i + random.uniform(0.1, 0.9)) * config.gap_m
    u = config.across[0] + config.across[1] * random.standard_normal()
    look = pedestrians.Appearance.random(random)
    (kind, paint), offset_s = vehicles.choose_model(random), random.uniform(0, 9)
    if config.kind == "car":
        return home, u, partial(vehicles.draw_vehicle, kind=kind, paint=paint, oncoming=config.speed < 0)
    draw = partial(pedestrians.draw_person, label=config.kind, look=look, facing=config.speed < 0, offset_s=offset_s)
    return home, u, draw


def _leading_car(seed: int, now: Camera, before: Camera) -> DrawItem:
    """Return the car ahead in the same lane, at a varying distance; it moves on even if the camera is static."""
    random = rng(seed, 43)
    kind, paint = vehicles.choose_model(random)
    phase = random.uniform(0, 2 * np.pi)
    ways = [drive_z(time, seed) + 20 + 7 * math.sin(0.35 * time + phase) for time in (now.time_s, before.time_s)]
    way = [point_beside(-1.6, z, seed) for z in ways]
    return way[0][1], partial(vehicles.draw_vehicle, kind=kind, paint=paint, way=way)


def list_items(seed: int, now: Camera, before: Camera) -> list[DrawItem]:
    """Return all items to draw on the street, far before near, with their motion since the camera was at `before`."""
    items = [_leading_car(seed, now, before)]
    for number, column in enumerate(COLUMNS):
        first = math.floor((now.position[2] - column.speed * now.time_s) / column.gap_m) - 1
        for i in range(first, first + math.ceil(column.sight_m / column.gap_m) + 1):
            if (mover := _mover(seed, number, i)) is not None:
                home, u, draw = mover
                way = [point_beside(u, home + column.speed * view.time_s, seed) for view in (now, before)]
                items.append((way[0][1], partial(draw, way=way)))
    first = math.floor(now.position[2] / LOT_M)
    for side in (-1, 1):
        for kerb, sight_m in ((False, SIGHT_M), (True, KERB_SIGHT_M)):
            for number in range(first, first + math.ceil(sight_m / LOT_M)):
                items += _fixed_items(kerb, seed, side, number)
    return sorted(items, key=lambda item: -item[0])
