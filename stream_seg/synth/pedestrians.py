"""Draw pedestrians and cyclists, whose plane limbs swing with their pace."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stream_seg.datasets.palettes import CAMVID
from stream_seg.synth.camera import Way
from stream_seg.synth.canvas import Canvas
from stream_seg.synth.roadside import draw_shadow
from stream_seg.synth.surfaces import Colour, Mesh, Part, brighten, parse_colours

COATS = parse_colours("1c1c1e 242c3a 462428 525454 2c3424 6e2834 687078")
TROUSERS = parse_colours("1c1e22 283242 2c2828 645c54")
SKIN: Colour = (104, 130, 166)
HAIR = parse_colours("201a16 4e3828 605e5a 161414")
SHADOW_M = 45.0
CIRCLE = [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 10, endpoint=False)]
Corner = tuple[float, float]


class Appearance(NamedTuple):
    """Colours of a person's clothes and hair, a factor for the height, and the share of the stride across the view."""

    coat: Colour
    trousers: Colour
    hair: Colour
    tall: float
    across: float

    @classmethod
    def random(cls, random: np.random.Generator) -> Appearance:
        """Return a random appearance."""
        coat, trousers, hair = (table[random.integers(len(table))] for table in (COATS, TROUSERS, HAIR))
        return cls(coat, trousers, hair, float(random.uniform(0.9, 1.06)), float(random.uniform(0, 0.9)))


def _limb(a: Corner, b: Corner, wide: Corner, colour: Colour, z: float = 0.0) -> Part:
    """Return a tapering strip from `a` to `b` (X, Y), with the widths `wide` at its ends."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    scale = 0.5 / (math.hypot(dx, dy) + 1e-9)
    nx, ny = -dy * scale, dx * scale
    (u, v), (p, q), (k, m) = a, b, wide
    ends = ((u, v, k), (u, v, -k), (p, q, -m), (p, q, m))
    return [(x + nx * half, y + ny * half, z) for x, y, half in ends], colour


def _disc(x: float, y: float, radii: Corner, colour: Colour, z: float = -0.01) -> Part:
    return [(x + radii[0] * c, y + radii[1] * s, z) for c, s in CIRCLE], colour


def _panel(top: Corner, bottom: Corner, colour: Colour) -> Part:
    """Return a trapezoid between two edges, each given by half its width and its height Y."""
    (u, v), (p, q) = top, bottom
    return [(-u, v, 0), (u, v, 0), (p, q, 0), (-p, q, 0)], colour


def _head_parts(look: Appearance, x: float, y: float, facing: bool) -> list[Part]:
    hair, face = _disc(x, y + 0.03, (0.105, 0.135), look.hair), _disc(x, y - 0.02, (0.086, 0.12), SKIN)
    return [hair, face] if facing else [face, hair]


def pose_walker(look: Appearance, phase: float, facing: bool) -> list[Part]:
    """Return a walking person at the origin, `facing` the camera or not."""
    across = look.across
    parts: list[Part] = []
    for side, shade in ((-1, 0.8), (1, 1.0)):
        turn, colour = phase + (math.pi if side > 0 else 0), brighten(look.trousers, shade)
        swing, lift = math.sin(turn), max(math.cos(turn), 0) * 0.14
        hip = side * 0.09 * (1 - 0.7 * across)
        knee = (hip + 0.2 * swing * across, 0.47 + lift * 0.4)
        foot = (hip + (0.34 * swing - lift * 0.6) * across, 0.05 + lift)
        toe = (foot[0] + 0.05 + 0.1 * across, 0.03 + lift)
        parts.append(_limb((hip * 0.8, 0.9), knee, (0.19, 0.14), colour))
        parts.append(_limb(knee, foot, (0.14, 0.1), colour))
        parts.append(_limb((foot[0] - 0.04, 0.06 + lift), toe, (0.1, 0.08), (22, 22, 24)))
    shoulder = 0.23 - 0.08 * across
    parts.append(_panel((shoulder, 1.42), (0.19, 0.8), look.coat))
    for side, shade in ((-1, 0.82), (1, 1.12)):
        swing = math.sin(phase + (0 if side > 0 else math.pi))
        hand = (side * 0.27 * (1 - across) + 0.24 * swing * across, 0.82 + 0.04 * swing)
        sleeve = brighten(look.coat, shade)
        parts.append(_limb((side * shoulder * 0.92, 1.38), hand, (0.12, 0.09), sleeve, -0.01))
    return parts + _head_parts(look, 0.03 * across, 1.58, facing)


def pose_cyclist(look: Appearance, phase: float, facing: bool) -> list[Part]:
    """Return a cyclist at the origin, seen along the road, `facing` the camera or not."""
    wheel, bar = _panel((0.03, 0.68), (0.03, 0), (22, 22, 22)), _panel((0.28, 1.02), (0.28, 0.99), (40, 40, 42))
    parts = [wheel, bar]
    for side in (-1, 1):
        turn, sleeve = phase + (math.pi if side > 0 else 0), brighten(look.coat, 0.9)
        foot = (side * 0.11, 0.3 + 0.17 * math.sin(turn))
        knee = (side * 0.15, 0.68 + 0.12 * math.sin(turn))
        parts.append(_limb((side * 0.09, 0.98), knee, (0.17, 0.13), look.trousers))
        parts.append(_limb(knee, foot, (0.13, 0.09), look.trousers))
        parts.append(_limb((side * 0.2, 1.38), (side * 0.27, 1.02), (0.11, 0.08), sleeve, -0.01))
    parts.append(_panel((0.22, 1.45), (0.17, 0.93), look.coat))
    lamp = _disc(0, 0.8, (0.04, 0.04), (230, 235, 235) if facing else (40, 30, 210), -0.02)
    return [*parts, *_head_parts(look, 0, 1.6, facing), lamp]


POSES = {"pedestrian": (pose_walker, 5.6), "bicyclist": (pose_cyclist, 6.0)}
"""Function that returns the pose at a phase, and radians of phase per second, by label."""


def draw_person(canvas: Canvas, label: str, look: Appearance, *, way: Way, facing: bool, offset_s: float) -> None:
    """Paint a person who follows `way`, with a time offset of the stride."""
    if not canvas.is_visible(way[0], 1.0):
        return
    here, there = (np.array([x, 0.0, z]) for x, z in way)
    if here[2] - canvas.now.position[2] < SHADOW_M:
        draw_shadow(canvas, here, 0.4, -0.3, 0.3)
    pose, turn = POSES[label]
    times = (camera.time_s + offset_s for camera in (canvas.now, canvas.before))
    now, past = (Mesh.from_parts(pose(look, turn * time_s, facing)) for time_s in times)
    now.points[:] *= look.tall
    canvas.draw_mesh(now, here, CAMVID.index(label), before=past.points * look.tall + there)
