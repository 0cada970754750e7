"""Draw cars and vans: low-polygon bodies with windows, lights, plates and wheels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np

from stream_seg.datasets.palettes import CAMVID
from stream_seg.synth.camera import Points
from stream_seg.synth.canvas import Canvas
from stream_seg.synth.mesh import Mesh, Part
from stream_seg.synth.plants import make_shadow
from stream_seg.synth.texture import Colour, brighten

GLASS: Colour = (44, 38, 33)
TYRE: Colour = (24, 23, 23)
PAINTS: tuple[Colour, ...] = (
    (44, 42, 42),
    (150, 150, 148),
    (62, 60, 60),
    (96, 56, 40),
    (40, 34, 110),
    (196, 198, 198),
    (70, 84, 60),
    (120, 116, 112),
    (58, 44, 34),
)
Kind: TypeAlias = Literal["hatchback", "saloon", "van"]
COARSE_M, SHADOW_M = 42.0, 70.0
CROSSING_AHEAD_M, CROSSING_HALF_M, CROSSING_SPEED = 9.0, 9.0, 6.0
KINDS: tuple[Kind, ...] = ("hatchback", "saloon", "van")


@dataclass(frozen=True)
class Shape:
    """Lengths of the side view in meters from the nose, and widths of the front view."""

    bonnet: float
    """End of the bonnet, start of the windscreen."""
    screen: float
    """End of the windscreen, start of the roof."""
    roof_end: float
    boot: float
    """End of the rear window."""
    tail: float
    waist: float
    """Height of the lower edge of the windows."""
    top: float
    taper: float
    """Width of the roof as a share of the body width."""
    half: float
    """Half the body width."""


SHAPES: dict[Kind, Shape] = {
    "hatchback": Shape(0.95, 1.65, 3.35, 3.8, 3.9, 0.92, 1.47, 0.76, 0.85),
    "saloon": Shape(1.1, 1.85, 3.2, 3.75, 4.5, 0.92, 1.43, 0.72, 0.88),
    "van": Shape(0.6, 1.3, 4.75, 4.85, 4.9, 1.1, 2.15, 0.9, 0.95),
}


@dataclass(frozen=True)
class _Face:
    points: Points
    shade: float
    colour: Colour | None  # None: the paint of the car
    small: bool = False


def _box_corners(x: tuple[float, float], y: tuple[float, float], z: float) -> Points:
    return np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])


def _shrink(points: Points, factor: float) -> Points:
    center = points.mean(0)
    return np.asarray(center + (points - center) * factor)


def _end_faces(shape: Shape, z: float, *, rear: bool) -> list[_Face]:
    """Return the front or the rear: panel, bumper, tyres, lights, plate, and at the front a grille."""
    half, top = shape.half, shape.waist - (0.0 if rear else 0.22)
    out = 0.01 if rear else -0.01
    lamp: Colour = (44, 36, 190) if rear else (236, 240, 240)
    plate: Colour = (70, 200, 225) if rear else (225, 228, 228)
    tyres = [_box_corners((outer, outer * 0.74), (0.0, 0.3), z - 30 * out) for outer in (-half, half)]
    lamps = [_box_corners((outer * 0.62, outer * 0.97), (top - 0.28, top - 0.07), z + out) for outer in (-half, half)]
    faces = [_Face(tyre, 1, TYRE) for tyre in tyres]
    faces.append(_Face(_box_corners((-half, half), (0.26, top), z), 0.72, None))
    faces.append(_Face(_box_corners((-half, half), (0.22, 0.44), z + out), 0.5, (66, 65, 65), True))
    faces += [_Face(points, 1, lamp) for points in lamps]
    faces.append(_Face(_box_corners((-0.26, 0.26), (0.5, 0.61), z + 2 * out), 0.9, plate, True))
    if not rear:
        faces.append(_Face(_box_corners((-0.45, 0.45), (top - 0.19, top - 0.08), z + out), 1, (40, 38, 38), True))
    return faces


def _wheel_corners(x: float, z: float, radius: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    return np.stack((np.full(14, x), 0.31 + radius * np.sin(angle), z + radius * np.cos(angle)), axis=1)


def _side_faces(shape: Shape, side: int) -> list[_Face]:
    """Return panel, cabin, windows and wheels of the left (-1) or right (1) side."""
    s, x, upper = shape, side * shape.half, side * shape.half * shape.taper
    outline = [
        (0, 0.28),
        (0, s.waist - 0.22),
        (s.bonnet, s.waist),
        (s.boot, s.waist),
        (s.tail, s.waist),
        (s.tail, 0.28),
    ]
    sill, rail = (
        np.array([[x, s.waist, s.bonnet], [x, s.waist, s.boot]]),
        np.array([[upper, s.top, s.screen], [upper, s.top, s.roof_end]]),
    )
    faces = [_Face(np.array([[x, y, z] for z, y in outline]), 0.86, None)]
    faces.append(_Face(np.array([sill[0], rail[0], rail[1], sill[1]]), 0.8, None))
    skirt = np.array([[x * 1.004, y, z] for z, y in ((0, 0.28), (0, 0.4), (s.tail, 0.4), (s.tail, 0.28))])
    shoulder = np.array(
        [[x * 1.004, y, z] for z, y in ((s.bonnet, 0.8), (s.bonnet, 0.9), (s.boot, 0.9), (s.boot, 0.8))]
    )
    faces += [_Face(skirt, 0.55, None, True), _Face(shoulder, 1.06, None, True)]
    for start, end in ((0.05, 0.3),) if s.top > 2 else ((0.05, 0.49), (0.52, 0.94)):
        low = [sill[0] + (sill[1] - sill[0]) * f for f in (start, end)]
        high = [rail[0] + (rail[1] - rail[0]) * f for f in (start, end)]
        faces.append(_Face(_shrink(np.array([low[0], high[0], high[1], low[1]]), 0.84), 0.9, GLASS))
    for z in (0.78, s.tail - 0.75):
        for out, radius, colour in ((0.005, 0.37, (26, 25, 25)), (0.01, 0.31, TYRE), (0.015, 0.19, (128, 128, 128))):
            faces.append(_Face(_wheel_corners(x + side * out, z, radius), 1, colour, radius != 0.31))
    return faces


def _plane_across(shape: Shape, low: tuple[float, float], high: tuple[float, float]) -> Points:
    """Return a plane across the car from a low edge (y, z) to a high one; above the waist the body is narrower."""
    wide = [shape.half * (shape.taper if y > shape.waist else 1) for y, _ in (low, high)]
    return np.array([[-wide[0], *low], [wide[0], *low], [wide[1], *high], [-wide[1], *high]])


def _face_outward(face: _Face, center: Points) -> _Face:
    """Return the face with its corners clockwise as seen from outside the body."""
    p = face.points
    facing = np.cross(p[1] - p[0], p[-1] - p[0]) @ (p.mean(0) - center)
    return face if facing > 0 else replace(face, points=p[::-1])


@lru_cache(maxsize=8)
def _body_faces(kind: Kind) -> tuple[_Face, ...]:
    """Return all faces, far before near; the nose at z = 0, the tail at positive z."""
    s = SHAPES[kind]
    screen = _plane_across(s, (s.waist, s.bonnet), (s.top, s.screen))
    rear = _plane_across(s, (s.waist, s.boot), (s.top, s.roof_end))
    faces = [_Face(_plane_across(s, (s.waist - 0.22, 0), (s.waist, s.bonnet)), 1.12, None)]
    faces.append(_Face(_plane_across(s, (s.waist, s.tail), (s.waist, s.boot)), 1.1, None))
    faces += _side_faces(s, -1) + _side_faces(s, 1) + _end_faces(s, 0, rear=False) + _end_faces(s, s.tail, rear=True)
    faces += [_Face(_plane_across(s, (s.top, s.screen), (s.top, s.roof_end)), 1.15, None)]
    faces += [_Face(screen, 0.9, None), _Face(_shrink(screen, 0.88), 1.5, GLASS)]
    faces += [_Face(rear, 0.78, None), _Face(_shrink(rear, 0.8), 1.1, GLASS)]
    center = np.array([0, 0.7, s.tail / 2])
    return tuple(_face_outward(face, center) for face in faces)


@lru_cache(maxsize=256)
def _make_body(kind: Kind, paint: Colour, light: float, oncoming: bool, coarse: bool) -> Mesh:
    """Return the mesh of a vehicle; its near end, nose or tail, at z = 0. `coarse` omits small faces."""
    parts: list[Part] = []
    for face in _body_faces(kind):
        if coarse and face.small:
            continue
        points = face.points if oncoming else face.points * (-1, 1, -1) + (0, 0, SHAPES[kind].tail)
        parts.append((points.tolist(), brighten(face.colour or paint, face.shade * (1 if face.colour else light))))
    return Mesh.from_parts(parts)


def choose_model(random: np.random.Generator) -> tuple[Kind, Colour]:
    """Return a random kind of vehicle and its paint."""
    kind = KINDS[random.choice(len(KINDS), p=(0.53, 0.37, 0.1))]
    return kind, PAINTS[random.integers(len(PAINTS))]


def draw_vehicle(
    canvas: Canvas,
    kind: Kind,
    paint: Colour,
    place: tuple[float, float],
    before: tuple[float, float],
    *,
    oncoming: bool = False,
    light: float = 1.0,
) -> None:
    """Draw a vehicle, its near end (its nose if `oncoming`) at `place` (X, Z), in the previous frame at `before`."""
    length, half = SHAPES[kind].tail, SHAPES[kind].half
    if not canvas.is_visible(place, length):
        return
    here, there = (np.array([x, 0.0, z]) for x, z in (place, before))
    distance_m = place[1] - canvas.now.position[2]
    if distance_m < SHADOW_M:
        across, ahead = half + 0.25, length + 0.3
        ground = np.array([[-across, 0.01, ahead], [across, 0.01, ahead], [-across, 0.01, -0.35]])
        canvas.draw_texture(make_shadow(), ground + here, None)
    body = _make_body(kind, paint, light, oncoming, distance_m > COARSE_M)
    canvas.draw_mesh(body, here, CAMVID.index("car"), before=body.points + there, cull=True)


def draw_crossing(canvas: Canvas, t: float, step: float) -> None:
    """Draw a van that crosses the view nearby from left to right, again and again, visible two seconds of three.

    At CROSSING_HALF_M from the middle it is out of sight, and starts again on the other side.
    """
    body = _make_body("van", PAINTS[5], 1.0, True, False)
    turned = replace(body, points=body.points @ np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]))
    across = (CROSSING_SPEED * t) % (2 * CROSSING_HALF_M) - CROSSING_HALF_M + SHAPES["van"].tail / 2
    here, there = (
        np.array([camera.position[0] + x, 0.0, camera.position[2] + CROSSING_AHEAD_M])
        for camera, x in ((canvas.now, across), (canvas.before, across - CROSSING_SPEED * step))
    )
    canvas.draw_mesh(turned, here, CAMVID.index("car"), before=turned.points + there, cull=True)
