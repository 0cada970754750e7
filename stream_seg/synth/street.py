"""Place objects along an endless street; they depend only on the seed and the position.

The street has lots of 10 m on either side; six lots form a block, which is a terrace, houses or a park.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial

import numpy as np

from stream_seg.datasets.palettes import CAMVID
from stream_seg.synth import furniture, houses, plants, vehicles
from stream_seg.synth.backdrop import PAVEMENT_M
from stream_seg.synth.camera import point_beside
from stream_seg.synth.canvas import Canvas, DrawItem, Paint
from stream_seg.synth.mesh import Mesh
from stream_seg.synth.texture import Texture, rng
from stream_seg.synth.traffic import SIGHT_M, list_moving_items
from stream_seg.synth.weather import choose_weather

BUILDING = CAMVID.index("building")
LOT_M = 10.0
KERB_SIGHT_M = 120.0


def _upright_texture(
    texture: Texture, place: tuple[float, float], wide: float, tall: float, label: str, light: float
) -> Paint:
    x, z = place
    corners = np.array([[x - wide / 2, tall, z], [x + wide / 2, tall, z], [x - wide / 2, 0, z]])
    return partial(Canvas.draw_texture, texture=texture, corners=corners, label=CAMVID.index(label), light=light)


def _mesh_at(mesh: Mesh, place: tuple[float, float], label: str) -> Paint:
    return partial(Canvas.draw_mesh, mesh=mesh, at=np.array([place[0], 0.0, place[1]]), label=CAMVID.index(label))


def _texture_along(texture: Texture, u: float, z: float, tall: float, label: str, light: float, seed: int) -> Paint:
    (x0, z0), (x1, z1) = point_beside(u, z, seed), point_beside(u, z + LOT_M, seed)
    corners = np.array([[x0, tall, z0], [x1, tall, z1], [x0, 0, z0]])
    return partial(Canvas.draw_texture, texture=texture, corners=corners, label=CAMVID.index(label), light=light)


def _light(seed: int, side: int) -> float:
    """Return the brightness of the fronts of a side: those on the side of the sun face away from it."""
    mood, sun_side = choose_weather(seed)
    return 1.0 - mood.sun * 0.55 if side == sun_side else 1.0 + mood.sun * 0.45


@lru_cache(maxsize=512)
def _lot_items(seed: int, side: int, number: int) -> tuple[DrawItem, ...]:
    """Return the items of a lot; `side` is -1 for left, 1 for right."""
    random = rng(seed, 40, side, number)
    kind = str(rng(seed, 41, side, number // 6).choice(["terrace", "terrace", "houses", "park"]))
    light = _light(seed, side)
    z, edge = number * LOT_M, PAVEMENT_M + 0.2
    items: list[DrawItem] = []
    facade = houses.make_facades(seed)[random.integers(houses.FACADES)]
    tree = plants.make_trees(seed)[random.integers(plants.TREES)]
    if kind == "park":
        for u in random.uniform(9, 24, 1 + number % 2):
            where = point_beside(side * u, z + random.uniform(0, 9.5), seed)
            size = random.uniform(0.8, 1.3)
            items.append((z + LOT_M + u / 10, _upright_texture(tree, where, 6 * size, 8 * size, "tree", light)))
        items.append((z + 26, _texture_along(plants.make_hedge(seed), side * 24, z, 3.2, "tree", light * 0.8, seed)))
        items.append((z + LOT_M, _texture_along(plants.make_fences()[0], side * edge, z, 1.2, "fence", 1.0, seed)))
    else:
        u = side * (edge if kind == "terrace" else edge + 4)
        near, far = point_beside(u, z, seed), point_beside(u, z + (LOT_M if kind == "terrace" else 8.5), seed)
        shell = houses.make_shell(facade, near, far, side=side, light=light)
        items.append((z + LOT_M + 1.1, partial(Canvas.draw_mesh, mesh=shell, at=np.zeros(3), label=BUILDING)))
        front = houses.front_corners(facade, near, far, side=side)
        items.append(
            (
                z + LOT_M + 1,
                partial(Canvas.draw_texture, texture=facade.texture, corners=front, label=BUILDING, light=light),
            )
        )
    if kind == "houses":
        boundary = int(random.integers(4))
        if boundary < 2:
            items.append(
                (z + LOT_M, _texture_along(plants.make_fences()[boundary], side * edge, z, 1.25, "fence", light, seed))
            )
        else:
            items.append((z + LOT_M, _texture_along(plants.make_hedge(seed), side * edge, z, 1.7, "tree", light, seed)))
        if random.random() < 0.5:
            where = point_beside(side * (edge + 1.6), z + 9, seed)
            items.append((z + LOT_M + 0.5, _upright_texture(tree, where, 4.6, 6.2, "tree", light)))
    return tuple(items)


@lru_cache(maxsize=512)
def _kerb_items(seed: int, side: int, number: int) -> tuple[DrawItem, ...]:
    return tuple(_list_kerb_items(seed, side, number))


def _list_kerb_items(seed: int, side: int, number: int) -> Iterator[DrawItem]:
    """Yield street trees, lamps, signs, bollards and parked cars of a lot."""
    random = rng(seed, 44, side, number)
    tree = plants.make_trees(seed)[random.integers(plants.TREES)]
    z, light = number * LOT_M, _light(seed, side)
    if random.random() < 0.16:
        where = point_beside(side * 7.2, z + 5, seed)
        yield where[1], _upright_texture(tree, where, 5.2, 7.4, "tree", light)
    if number % 3 == (0 if side < 0 else 1):
        yield z + 2, _mesh_at(furniture.make_lamp(side), point_beside(side * 5.65, z + 2, seed), "pole")
    if random.random() < 0.3:
        face = str(random.choice(list(furniture.SIGNS)))
        where = point_beside(side * 5.75, z + 7, seed)
        yield z + 7.01, _mesh_at(furniture.make_sign_post(), where, "pole")
        yield z + 7, _mesh_at(furniture.make_sign(face, back=side > 0), where, "sign")
    if random.random() < 0.15:
        for step in range(4):
            where = point_beside(side * 5.6, z + 1 + 2 * step, seed)
            yield where[1], _mesh_at(furniture.make_bollard(), where, "pole")
    for slot in (0.2, 5.2):
        if random.random() < 0.42 and number % 7 > 1:
            kind, paint = vehicles.choose_model(random)
            where = point_beside(side * 4.25 + random.normal(0, 0.08), z + slot, seed)
            draw = partial(vehicles.draw_vehicle, kind=kind, paint=paint, place=where, before=where, light=light)
            yield where[1], partial(draw, oncoming=side > 0)


def list_items(seed: int, t: float, step: float, from_z: float) -> list[DrawItem]:
    """Return all items to draw on the street at `t` seconds as seen from `from_z`, far before near."""
    first = math.floor(from_z / LOT_M)
    items = list(list_moving_items(seed, t, step, from_z))
    for side in (-1, 1):
        for number in range(first, first + math.ceil(SIGHT_M / LOT_M)):
            items += _lot_items(seed, side, number)
        for number in range(first, first + math.ceil(KERB_SIGHT_M / LOT_M)):
            items += _kerb_items(seed, side, number)
    return sorted(items, key=lambda item: -item[0])
