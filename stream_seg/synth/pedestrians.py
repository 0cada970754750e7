"""People on foot and on bicycles: plane limbs that swing with their pace."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stream_seg.datasets.palettes import CAMVID
from stream_seg.synth.canvas import Canvas
from stream_seg.synth.mesh import Mesh, Part
from stream_seg.synth.plants import shadow
from stream_seg.synth.texture import Colour, lit

COATS: tuple[Colour, ...] = (
    (30, 28, 28),
    (58, 44, 36),
    (40, 36, 70),
    (84, 84, 82),
    (36, 52, 44),
    (52, 40, 110),
    (120, 112, 104),
)
TROUSERS: tuple[Colour, ...] = ((34, 30, 28), (66, 50, 40), (40, 40, 44), (84, 92, 100))
SKIN: Colour = (104, 130, 166)
HAIR: tuple[Colour, ...] = ((22, 26, 32), (40, 56, 78), (90, 94, 96), (20, 20, 22))
SHADOW_M = 45.0
CIRCLE = [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 10, endpoint=False)]
Corner = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """What somebody wears, how tall they are (a factor), how much their stride lies across the view, 0-1."""

    coat: Colour
    trousers: Colour
    hair: Colour
    tall: float
    across: float

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Look:
        """Somebody by chance."""
        coat, trousers, hair = (table[random.integers(len(table))] for table in (COATS, TROUSERS, HAIR))
        return cls(coat, trousers, hair, float(random.uniform(0.9, 1.06)), float(random.uniform(0, 0.9)))


def _limb(a: Corner, b: Corner, wide: Corner, z: float = 0.0) -> list[tuple[float, float, float]]:
    """A tapering strip from `a` to `b` (X, Y), as wide as `wide` says at either end."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    scale = 0.5 / (math.hypot(dx, dy) + 1e-9)
    nx, ny = -dy * scale, dx * scale
    (u, v), (p, q) = a, b
    k, m = wide
    return [
        (u + nx * k, v + ny * k, z),
        (u - nx * k, v - ny * k, z),
        (p - nx * m, q - ny * m, z),
        (p + nx * m, q + ny * m, z),
    ]


def _disc(x: float, y: float, radii: Corner, z: float) -> list[tuple[float, float, float]]:
    return [(x + radii[0] * c, y + radii[1] * s, z) for c, s in CIRCLE]


def _head(look: Look, x: float, y: float, facing: bool) -> list[Part]:
    hair: Part = (_disc(x, y + 0.03, (0.105, 0.135), -0.01), look.hair)
    face: Part = (_disc(x, y - 0.02, (0.086, 0.12), -0.01), SKIN)
    return [hair, face] if facing else [face, hair]


def walker(look: Look, phase: float, facing: bool) -> list[Part]:
    """Somebody mid-stride at the origin, `facing` the camera or not."""
    across = look.across
    parts: list[Part] = []
    for side, colour in ((-1, lit(look.trousers, 0.8)), (1, look.trousers)):
        turn = phase + (math.pi if side > 0 else 0)
        swing, lift = math.sin(turn), max(math.cos(turn), 0) * 0.14
        hip = side * 0.09 * (1 - 0.7 * across)
        knee = (hip + 0.2 * swing * across, 0.47 + lift * 0.4)
        foot = (hip + (0.34 * swing - lift * 0.6) * across, 0.05 + lift)
        parts.append((_limb((hip * 0.8, 0.9), knee, (0.19, 0.14)), colour))
        parts.append((_limb(knee, foot, (0.14, 0.1)), colour))
        toe = (foot[0] + 0.05 + 0.1 * across, 0.03 + lift)
        parts.append((_limb((foot[0] - 0.04, 0.06 + lift), toe, (0.1, 0.08)), (22, 22, 24)))
    shoulder = 0.23 - 0.08 * across
    parts.append(([(-shoulder, 1.42, 0), (shoulder, 1.42, 0), (0.19, 0.8, 0), (-0.19, 0.8, 0)], look.coat))
    for side, shade in ((-1, 0.82), (1, 1.12)):
        swing = math.sin(phase + (0 if side > 0 else math.pi))
        hand = (side * 0.27 * (1 - across) + 0.24 * swing * across, 0.82 + 0.04 * swing)
        parts.append((_limb((side * shoulder * 0.92, 1.38), hand, (0.12, 0.09), -0.01), lit(look.coat, shade)))
    return parts + _head(look, 0.03 * across, 1.58, facing)


def cyclist(look: Look, phase: float, facing: bool) -> list[Part]:
    """A cyclist at the origin, seen along the road, `facing` the camera or not."""
    parts: list[Part] = [
        ([(-0.03, 0.68, 0), (0.03, 0.68, 0), (0.03, 0, 0), (-0.03, 0, 0)], (22, 22, 22)),
        ([(-0.28, 1.02, 0), (0.28, 1.02, 0), (0.28, 0.99, 0), (-0.28, 0.99, 0)], (40, 40, 42)),
    ]
    for side in (-1, 1):
        turn = phase + (math.pi if side > 0 else 0)
        foot = (side * 0.11, 0.3 + 0.17 * math.sin(turn))
        knee = (side * 0.15, 0.68 + 0.12 * math.sin(turn))
        parts.append((_limb((side * 0.09, 0.98), knee, (0.17, 0.13)), look.trousers))
        parts.append((_limb(knee, foot, (0.13, 0.09)), look.trousers))
        parts.append((_limb((side * 0.2, 1.38), (side * 0.27, 1.02), (0.11, 0.08), -0.01), lit(look.coat, 0.9)))
    parts.append(([(-0.22, 1.45, 0), (0.22, 1.45, 0), (0.17, 0.93, 0), (-0.17, 0.93, 0)], look.coat))
    lamp: Part = (_disc(0, 0.8, (0.04, 0.04), -0.02), (230, 235, 235) if facing else (40, 30, 210))
    return [*parts, *_head(look, 0, 1.6, facing), lamp]


POSES = {"pedestrian": (walker, 5.6), "bicyclist": (cyclist, 6.0)}
"""By label: the pose at a phase, and how fast the phase turns, radians per second."""


def draw_figure(
    canvas: Canvas,
    label: str,
    look: Look,
    place: tuple[float, float],
    before: tuple[float, float],
    *,
    times: tuple[float, float],
    facing: bool,
) -> None:
    """Paint somebody at `place` (X, Z), who stood at `before` one frame ago; `times`: now and then, seconds."""
    if not canvas.sees(place, 1.0):
        return
    here, there = (np.array([x, 0.0, z]) for x, z in (place, before))
    if place[1] - canvas.now.position[2] < SHADOW_M:
        spot = np.array([[-0.4, 0.01, 0.3], [0.4, 0.01, 0.3], [-0.4, 0.01, -0.3]])
        canvas.patch(shadow(), spot + here, None)
    pose, turn = POSES[label]
    now, past = (Mesh.of(pose(look, turn * time, facing)) for time in times)
    now.points[:] *= look.tall
    canvas.mesh(now, here, CAMVID.index(label), before=past.points * look.tall + there)
