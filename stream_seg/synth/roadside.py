"""Trees, hedges and fences as textures, lamps, signs and bollards as meshes with their foot as origin."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from stream_seg.synth.camera import Points
from stream_seg.synth.canvas import Canvas
from stream_seg.synth.surfaces import Colour, Mesh, Part, Texture, brighten, fractal_noise, rng

TREES = 8
STEEL: Colour = (74, 76, 75)
SIGNS: dict[str, tuple[int, tuple[float, float], Colour, Colour]] = {
    "limit": (16, (0.34, 0.34), (44, 40, 190), (232, 234, 234)),
    "direction": (16, (0.34, 0.34), (150, 84, 30), (160, 96, 40)),
    "warning": (3, (0.4, 0.4), (40, 36, 190), (230, 232, 232)),
    "place": (4, (0.6, 0.5), (70, 70, 70), (210, 214, 212)),
    "signal": (4, (0.22, 0.6), (28, 28, 28), (34, 34, 34)),
}
"""Number of corners, half width and half height in meters, colours of rim and face, by name."""


@lru_cache(maxsize=4 * TREES)
def make_tree(seed: int, index: int) -> Texture:
    """Return one of the TREES of a town, 6 by 8 meters, bare if its index is even, else leafy."""
    random = rng(seed, 30, index)
    height, width = 320, 240
    wood = np.zeros((height, width), np.uint8)
    leafy = index % 2 == 1

    def draw_branch(x: float, y: float, angle: float, length: float, thick: float) -> None:
        """Draw a branch with two or three thinner ones, recursively."""
        end_x, end_y = x + length * math.cos(angle), y - length * math.sin(angle)
        start, end = (round(x * 8), round(y * 8)), (round(end_x * 8), round(end_y * 8))
        cv2.line(wood, start, end, (255,), max(round(thick), 1), cv2.LINE_AA, 3)
        if length >= (18 if leafy else 10):
            for turn in random.normal((-0.42, 0.42, 0.0)[: int(random.integers(2, 4))], 0.22):
                draw_branch(end_x, end_y, angle + turn, length * random.uniform(0.68, 0.84), thick * 0.64)

    draw_branch(width / 2, height, math.pi / 2, 56 if leafy else 62, random.uniform(9, 13))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    crown = 1 - np.hypot((x - width / 2) / (width * 0.42), (y - height * 0.4) / (height * 0.37)) ** 3
    # no branch may be cut off at the edge of the texture
    alpha = wood.astype(np.float32) / 255 * np.where(y < height * 0.75, np.clip((crown + 0.6) * 2.5, 0, 1), 1)
    bark = np.array((46, 54, 60), np.float32) * random.uniform(0.7, 1.2)
    colour = bark * (1 + 0.12 * fractal_noise(height, width, random, cell=8)[..., None])
    if not leafy:
        # a brown veil around the branches for twigs too thin to draw
        veil = np.clip(cv2.GaussianBlur(alpha, (0, 0), 6) * 1.7, 0, 0.5) * np.clip(crown * 3 + 0.9, 0, 1)
        veil *= fractal_noise(height, width, random, cell=5, octaves=2) > -0.2
        return Texture.from_colours(colour, np.maximum(alpha, veil), label_alpha=50)
    clumps = fractal_noise(height, width, random, cell=48, octaves=6)
    leaves = np.clip((crown * 1.5 + 0.62 * clumps) * 2.5, 0, 1)
    shade = 0.8 + 0.28 * clumps + 0.45 * (0.5 - y / height)
    shade += 0.2 * fractal_noise(height, width, random, cell=4, octaves=2)
    leaf = np.array(((38, 66, 52), (30, 54, 50), (40, 74, 78))[index // 2 % 3], np.float32)
    foliage = np.clip(shade, 0.25, 1.8)[..., None] * leaf
    mixed = foliage * leaves[..., None] + colour * (1 - leaves[..., None])
    return Texture.from_colours(np.asarray(mixed, np.float32), np.maximum(alpha, leaves), label_alpha=50)


@lru_cache(maxsize=4)
def make_hedge(seed: int) -> Texture:
    """Return 10 meters of a hedge with a ragged upper edge."""
    random = rng(seed, 31)
    height, width = 64, 320
    clumps = fractal_noise(height, width, random, cell=20, octaves=5)
    y = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    alpha = np.clip((0.88 - y + 0.05 * clumps) * 12, 0, 1)
    colour = np.array((34, 58, 50), np.float32) * np.clip(0.65 + 0.5 * y + 0.3 * clumps, 0.2, 2)[..., None]
    return Texture.from_colours(colour, np.asarray(alpha, np.float32), label_alpha=80)


@lru_cache(maxsize=1)
def make_fences() -> tuple[Texture, Texture]:
    """Return 10 meters of iron railings and of a boarded fence. The gaps of railings are labelled fence as well."""
    height, width = 48, 480
    bars = np.full((height, width), 0.06, np.float32)
    bars[:, ::6] = bars[:, 1::6] = 1
    bars[4:7] = bars[-7:-4] = 1
    iron = np.full((height, width, 3), 34, np.float32)
    boards = np.full((height, width, 3), (62, 82, 104), np.float32)
    boards *= 1 + 0.12 * np.sin(np.arange(width) // 7 * 4.7)[None, :, None]
    boards[:, ::7] *= 0.5
    boards[:, ::96] = boards[:, 1::96] = boards[:, 2::96] = (96, 100, 104)
    boards[:4] *= 0.7
    return Texture.from_colours(iron, bars, label_alpha=8), Texture.from_colours(boards)


@lru_cache(maxsize=1)
def _make_shadow() -> Texture:
    y, x = np.mgrid[-1:1:64j, -1:1:64j].astype(np.float32)
    alpha = np.clip(1.35 - (x**4 + y**4) ** 0.5 * 1.5, 0, 0.75) ** 1.2
    return Texture.from_colours(np.zeros((64, 64, 3), np.float32), alpha)


def draw_shadow(canvas: Canvas, at: Points, half: float, near: float, far: float) -> None:
    """Darken a soft spot on the ground, `half` meters to either side of `at` (3,), from `near` to `far` along Z."""
    corners = np.array([[-half, 0.01, far], [half, 0.01, far], [-half, 0.01, near]])
    canvas.draw_texture(_make_shadow(), corners + at, None)


def _polygon_corners(corners: int, radii: tuple[float, float], y: float) -> list[tuple[float, float, float]]:
    start = math.pi / 2 if corners == 3 else math.pi / 4
    angles = [start + 2 * math.pi * i / corners for i in range(corners)]
    return [(radii[0] * math.cos(a), y + radii[1] * math.sin(a), -0.05) for a in angles]


def _post_parts(wide: float, tall: float, colour: Colour) -> list[Part]:
    """Return a round post as two strips, the inner one lighter."""
    strips = ((-wide / 2, wide / 2, colour), (-wide / 4, wide / 8, brighten(colour, 1.35)))
    return [([(left, 0, 0), (right, 0, 0), (right, tall, 0), (left, tall, 0)], shade) for left, right, shade in strips]


@lru_cache(maxsize=2)
def make_lamp(side: int) -> Mesh:
    """Return a street lamp 7 m high with an arm over the road, on its left (`side` -1) or right (1)."""
    reach = -side * 1.3
    arm = [(0, 6.95, 0), (reach, 7.3, 0), (reach, 7.36, 0), (0, 7.05, 0)]
    head = [(reach, 7.22, 0), (reach * 1.5, 7.3, 0), (reach * 1.5, 7.38, 0), (reach, 7.4, 0)]
    return Mesh.from_parts([*_post_parts(0.15, 7.0, STEEL), (arm, STEEL), (head, (150, 156, 158))])


@lru_cache(maxsize=16)
def make_sign(name: str, back: bool) -> Mesh:
    """Return one of SIGNS, or its grey metal `back`."""
    corners, radii, rim, face = SIGNS[name]
    if back:
        rim, face = (96, 98, 98), (118, 120, 120)
    inner = radii[0] * 0.76, radii[1] * 0.76
    parts: list[Part] = [(_polygon_corners(corners, radii, 2.6), rim), (_polygon_corners(corners, inner, 2.6), face)]
    if name == "signal" and not back:
        parts.append((_polygon_corners(8, (0.09, 0.09), 2.85), (60, 60, 235)))
    return Mesh.from_parts(parts)


SIGN_POST = Mesh.from_parts(_post_parts(0.09, 2.5, STEEL))
BOLLARD = Mesh.from_parts(_post_parts(0.13, 1.0, (34, 34, 36)))
