"""Houses along the street: textures of their facades, and meshes of walls and roofs."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.surfaces import Colour, Mesh, Texture, brighten, fractal_noise, parse_colours, rng

FACADES = 14
STOREY_M = 2.9
DEPTH_M = 9.0
ROOF_M = 2.6
TEXELS_PER_M = 32

WALLS: dict[str, Colour] = {
    "red brick": (52, 66, 104),
    "stock brick": (86, 118, 140),
    "dark brick": (48, 54, 68),
    "render": (158, 170, 178),
    "white": (196, 200, 202),
    "stone": (118, 132, 140),
    "concrete": (104, 106, 108),
}
SIGNS = parse_colours("1e2878 82221e 224624 242022 966e28 503a5c")


class Facade(NamedTuple):
    """The texture of a front wall, and the height and colours of its house."""

    texture: Texture
    tall_m: float
    wall: Colour
    roof: Colour


def _draw_window(wall: NDArray[np.float32], box: tuple[int, int, int, int], random: np.random.Generator) -> None:
    """Draw a sash window: shaded reveal, pale frame, glass that reflects the sky at its top, sometimes a curtain."""
    left, top, right, bottom = box
    frame = float(random.choice((225, 205, 70)))
    wall[top - 5 : top, left - 3 : right + 3] *= 1.18  # lintel
    wall[bottom : bottom + 4, left - 4 : right + 4] = (168, 174, 176)  # sill
    wall[top:bottom, left:right] = frame
    glass = wall[top + 3 : bottom - 2, left + 2 : right - 2]
    fall = np.linspace(1, 0, len(glass), dtype=np.float32)[:, None, None]
    glass[:] = np.array((40, 36, 32)) + fall * random.uniform(5, 70) * np.array((1.0, 0.95, 0.9))
    if random.random() < 0.5:
        edge = max(glass.shape[1] // 5, 1)
        glass[:, :edge] = glass[:, -edge:] = random.uniform(80, 150)
    middle = (top + bottom) // 2
    wall[middle - 1 : middle + 1, left:right] = frame
    wall[top : top + 4, left:right] *= 0.45


def _draw_shop(wall: NDArray[np.float32], random: np.random.Generator) -> None:
    """Draw the ground floor of a shop: a sign board with lettering, a dark window, a door, a stall riser."""
    height, width = wall.shape[:2]
    top, board = height - round(STOREY_M * TEXELS_PER_M), round(0.6 * TEXELS_PER_M)
    colour = np.array(SIGNS[random.integers(len(SIGNS))], np.float32)
    wall[top : top + board] = colour
    x = width // 6
    for _ in range(int(random.integers(5, 11))):  # letters
        step = int(random.integers(5, 11))
        wall[top + 6 : top + board - 5, x : x + step - 2] = 215 if colour.mean() < 90 else 40
        x += step + 2
    wall[top + board :] = colour * 0.8
    panes = np.linspace(8, width - 8, int(random.integers(3, 6))).astype(int)
    for left, right in zip(panes[:-1] + 4, panes[1:], strict=True):
        pane = wall[top + board + 6 : height - 14, left:right]
        pane[:] = (46, 48, 50) + 12 * fractal_noise(pane.shape[0], pane.shape[1], random, cell=30, octaves=4)[..., None]
        pane[:8] *= 0.6
    door_left = int(panes[random.integers(len(panes) - 1)]) + 4
    wall[top + board + 6 :, door_left : door_left + 28] = (30, 30, 32)


def _draw_facade(seed: int, index: int) -> Facade:
    random = rng(seed, 20, index)
    name = str(random.choice(list(WALLS)))
    storeys, wide_m = int(random.choice((2, 2, 3, 3, 4))), 10
    tall_m = storeys * STOREY_M + 0.6
    height, width = round(tall_m * TEXELS_PER_M), wide_m * TEXELS_PER_M
    colour = np.array(WALLS[name], np.float32) * random.uniform(0.75, 1.05)
    stains = fractal_noise(height, width, random, cell=120, octaves=7)
    wall = colour * (1 + 0.09 * stains[..., None])
    if "brick" in name:
        row, column = np.arange(height)[:, None] // 3, np.arange(width)[None] // 8
        wall *= 1 + 0.1 * np.sin(12.9 * row + 78.2 * column + 37.7 * (row * column % 7))[..., None]
        wall[np.arange(height) % 3 == 0] *= 1.12
    wall = np.ascontiguousarray(wall, np.float32)
    wall[:14] *= 0.55  # gutter and its shadow
    wall[:5] = (70, 70, 72)
    columns, shop = int(random.integers(3, 5)), random.random() < 0.55
    w, h = round(random.uniform(0.9, 1.3) * TEXELS_PER_M), round(random.uniform(1.3, 1.7) * TEXELS_PER_M)
    for storey in range(storeys - 1 if shop else storeys):
        top = round((0.6 + storey * STOREY_M + 0.65) * TEXELS_PER_M)
        for number in range(columns):
            center = round((number + 0.5) * width / columns)
            if not shop and storey == storeys - 1 and number == columns // 2:
                doorway = height - round(2.1 * TEXELS_PER_M)
                wall[doorway - 12 :, center - 18 : center + 18] = 190
                wall[doorway:, center - 15 : center + 15] = SIGNS[random.integers(len(SIGNS))]
                wall[doorway - 9 : doorway - 2, center - 15 : center + 15] = 50
            else:
                _draw_window(wall, (center - w // 2, top, center + w // 2, top + h), random)
    if shop:
        _draw_shop(wall, random)
    pipe = int(random.integers(4, 12))
    wall[8:, pipe : pipe + 3] = (44, 44, 46)
    roof = (72, 74, 80) if random.random() < 0.6 else (52, 62, 92)
    texture = Texture.from_colours(np.asarray(cv2.GaussianBlur(wall, (3, 3), 0.7), np.float32))
    return Facade(texture, tall_m, (float(colour[0]), float(colour[1]), float(colour[2])), roof)


@lru_cache(maxsize=4)
def make_facades(seed: int) -> tuple[Facade, ...]:
    """Return the house fronts of a town, which its street repeats in random order."""
    return tuple(_draw_facade(seed, index) for index in range(FACADES))


def make_shell(facade: Facade, near: tuple[float, float], far: tuple[float, float], *, side: int, light: float) -> Mesh:
    """Return chimney, roof and the gable towards the camera of a house.

    Its front extends from `near` to `far` (X, Z), on the left (`side` -1) or right (1) of the road.
    """
    (x0, z0), (x1, z1) = near, far
    top, back = facade.tall_m, side * DEPTH_M
    ridge, behind = top + ROOF_M, x0 + back / 2
    brick = brighten(facade.wall, 0.62)
    chimney = [(behind + x, ridge + y, z0 + 1) for x, y in ((-0.5, -0.5), (0.5, -0.5), (0.5, 1.1), (-0.5, 1.1))]
    roof = [(x0, top, z0), (x1, top, z1), (x1 + back / 2, ridge, z1), (behind, ridge, z0)]
    gable = [(x0, 0, z0), (x0 + back, 0, z0), (x0 + back, top, z0), (behind, ridge, z0), (x0, top, z0)]
    return Mesh.from_parts([(chimney, brick), (roof, brighten(facade.roof, light)), (gable, brick)])
