"""Meshes of lamps, signs and bollards at the kerb, with their foot as origin."""

from __future__ import annotations

import math
from functools import lru_cache

from stream_seg.synth.mesh import Mesh, Part
from stream_seg.synth.texture import Colour, brighten

STEEL: Colour = (74, 76, 75)
SIGNS: dict[str, tuple[int, tuple[float, float], Colour, Colour]] = {
    "limit": (16, (0.34, 0.34), (44, 40, 190), (232, 234, 234)),
    "direction": (16, (0.34, 0.34), (150, 84, 30), (160, 96, 40)),
    "warning": (3, (0.4, 0.4), (40, 36, 190), (230, 232, 232)),
    "place": (4, (0.6, 0.5), (70, 70, 70), (210, 214, 212)),
    "signal": (4, (0.22, 0.6), (28, 28, 28), (34, 34, 34)),
}
"""Number of corners, half width and half height in meters, colours of rim and face, by name."""


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


@lru_cache(maxsize=1)
def make_sign_post() -> Mesh:
    """Return the post of a sign."""
    return Mesh.from_parts(_post_parts(0.09, 2.5, STEEL))


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


@lru_cache(maxsize=1)
def make_bollard() -> Mesh:
    """Return a black bollard, a meter high."""
    return Mesh.from_parts(_post_parts(0.13, 1.0, (34, 34, 36)))
