"""Draw cars and vans: low-polygon bodies with windows, lights, plates and wheels."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from stream_seg.datasets.palettes import CAMVID
from stream_seg.synth.camera import Points, Way
from stream_seg.synth.canvas import Canvas
from stream_seg.synth.roadside import draw_shadow
from stream_seg.synth.surfaces import Colour, Mesh, brighten, parse_colours

GLASS: Colour = (44, 38, 33)
TYRE: Colour = (24, 23, 23)
PAINTS = parse_colours("2a2a2c 949696 3c3c3e 283860 6e2228 c6c6c4 3c5446 707478 222c3a")
Kind: TypeAlias = Literal["hatchback", "saloon", "van"]
COARSE_M, SHADOW_M = 42.0, 70.0
CROSSING_AHEAD_M, CROSSING_HALF_M, CROSSING_SPEED = 9.0, 9.0, 6.0


class Shape(NamedTuple):
    """The side view, meters from the nose and from the ground, and `half` the width of the body.

    `bonnet` and `screen` are the ends of bonnet and windscreen, `boot` that of the rear window, `waist` the lower edge
    of the windows; `taper` is the width of the roof as a share of that of the body.
    """

    bonnet: float
    screen: float
    roof_end: float
    boot: float
    tail: float
    waist: float
    top: float
    taper: float
    half: float


SHAPES: dict[Kind, Shape] = {
    "hatchback": Shape(0.95, 1.65, 3.35, 3.8, 3.9, 0.92, 1.47, 0.76, 0.85),
    "saloon": Shape(1.1, 1.85, 3.2, 3.75, 4.5, 0.92, 1.43, 0.72, 0.88),
    "van": Shape(0.6, 1.3, 4.75, 4.85, 4.9, 1.1, 2.15, 0.9, 0.95),
}


class _Face(NamedTuple):
    points: Points
    shade: float
    colour: Colour | None = None  # None: the paint of the car
    small: bool = False


def _shrink(points: Points, factor: float) -> Points:
    center = points.mean(0)
    return np.asarray(center + (points - center) * factor)


def _end_faces(shape: Shape, z: float, *, rear: bool) -> list[_Face]:
    """Return the front or the rear: tyres, panel, bumper, lights, plate, and at the front a grille."""
    half, top = shape.half, shape.waist - (0.0 if rear else 0.22)
    out = 0.01 if rear else -0.01

    def rectangle(x0: float, x1: float, y0: float, y1: float, z: float) -> Points:
        return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])

    lamp: Colour = (44, 36, 190) if rear else (236, 240, 240)
    plate: Colour = (70, 200, 225) if rear else (225, 228, 228)
    lamps = [rectangle(side * 0.62, side * 0.97, top - 0.28, top - 0.07, z + out) for side in (-half, half)]
    grille = _Face(rectangle(-0.45, 0.45, top - 0.19, top - 0.08, z + out), 1, (40, 38, 38), True)
    return [
        *(_Face(rectangle(side, side * 0.74, 0.0, 0.3, z - 30 * out), 1, TYRE) for side in (-half, half)),
        _Face(rectangle(-half, half, 0.26, top, z), 0.72),
        _Face(rectangle(-half, half, 0.22, 0.44, z + out), 0.5, (66, 65, 65), True),
        *(_Face(points, 1, lamp) for points in lamps),
        _Face(rectangle(-0.26, 0.26, 0.5, 0.61, z + 2 * out), 0.9, plate, True),
        *([] if rear else [grille]),
    ]


def _side_faces(s: Shape, side: int) -> list[_Face]:
    """Return panel, cabin, trim, windows and wheels of the left (-1) or right (1) side."""
    x, upper = side * s.half, side * s.half * s.taper
    low, high = s.waist - 0.22, s.waist

    def panel(at: float, *corners: tuple[float, float]) -> Points:
        return np.array([[at, y, z] for z, y in corners])

    def cabin(start: float, end: float) -> Points:
        """Return the part of the cabin's side between two shares of its length."""
        sill, rail = panel(x, (s.bonnet, high), (s.boot, high)), panel(upper, (s.screen, s.top), (s.roof_end, s.top))
        (a, b), (c, d) = ([edge[0] + (edge[1] - edge[0]) * share for share in (start, end)] for edge in (sill, rail))
        return np.array([a, c, d, b])

    outline = (0, 0.28), (0, low), (s.bonnet, high), (s.boot, high), (s.tail, high), (s.tail, 0.28)
    windows = ((0.05, 0.3),) if s.top > 2 else ((0.05, 0.49), (0.52, 0.94))
    wheel = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    faces = [
        _Face(panel(x, *outline), 0.86),
        _Face(cabin(0, 1), 0.8),
        _Face(panel(x * 1.004, (0, 0.28), (0, 0.4), (s.tail, 0.4), (s.tail, 0.28)), 0.55, None, True),
        _Face(panel(x * 1.004, (s.bonnet, 0.8), (s.bonnet, 0.9), (s.boot, 0.9), (s.boot, 0.8)), 1.06, None, True),
        *(_Face(_shrink(cabin(*window), 0.84), 0.9, GLASS) for window in windows),
    ]
    for z in (0.78, s.tail - 0.75):
        for out, radius, colour in ((0.005, 0.37, (26, 25, 25)), (0.01, 0.31, TYRE), (0.015, 0.19, (128, 128, 128))):
            y, along = 0.31 + radius * np.sin(wheel), z + radius * np.cos(wheel)
            faces.append(_Face(panel(x + side * out, *zip(along, y, strict=True)), 1, colour, radius != 0.31))
    return faces


def _plane_across(shape: Shape, low: tuple[float, float], high: tuple[float, float]) -> Points:
    """Return a plane across the car from a low edge (y, z) to a high one; above the waist the body is narrower."""
    wide = [shape.half * (shape.taper if y > shape.waist else 1) for y, _ in (low, high)]
    return np.array([[-wide[0], *low], [wide[0], *low], [wide[1], *high], [-wide[1], *high]])


@lru_cache(maxsize=8)
def _body_faces(kind: Kind) -> tuple[_Face, ...]:
    """Return all faces, far before near; the nose at z = 0, the tail at positive z; corners clockwise from outside."""
    s = SHAPES[kind]
    screen = _plane_across(s, (s.waist, s.bonnet), (s.top, s.screen))
    rear = _plane_across(s, (s.waist, s.boot), (s.top, s.roof_end))
    faces = [
        _Face(_plane_across(s, (s.waist - 0.22, 0), (s.waist, s.bonnet)), 1.12),
        _Face(_plane_across(s, (s.waist, s.tail), (s.waist, s.boot)), 1.1),
        *(_side_faces(s, -1) + _side_faces(s, 1) + _end_faces(s, 0, rear=False) + _end_faces(s, s.tail, rear=True)),
        _Face(_plane_across(s, (s.top, s.screen), (s.top, s.roof_end)), 1.15),
        *(_Face(screen, 0.9), _Face(_shrink(screen, 0.88), 1.5, GLASS)),
        *(_Face(rear, 0.78), _Face(_shrink(rear, 0.8), 1.1, GLASS)),
    ]
    for number, face in enumerate(faces):
        p = face.points
        if np.cross(p[1] - p[0], p[-1] - p[0]) @ (p.mean(0) - (0, 0.7, s.tail / 2)) <= 0:
            faces[number] = face._replace(points=p[::-1])
    return tuple(faces)


@lru_cache(maxsize=256)
def _make_body(kind: Kind, paint: Colour, light: float, oncoming: bool, coarse: bool) -> Mesh:
    """Return the mesh of a vehicle; its near end, nose or tail, at z = 0. `coarse` omits small faces."""
    parts = []
    for face in _body_faces(kind):
        if not (coarse and face.small):
            points = face.points if oncoming else face.points * (-1, 1, -1) + (0, 0, SHAPES[kind].tail)
            colour = brighten(face.colour, face.shade) if face.colour else brighten(paint, face.shade * light)
            parts.append((points.tolist(), colour))
    return Mesh.from_parts(parts)


def choose_model(random: np.random.Generator) -> tuple[Kind, Colour]:
    """Return a random kind of vehicle and its paint."""
    kind = tuple(SHAPES)[random.choice(len(SHAPES), p=(0.53, 0.37, 0.1))]
    return kind, PAINTS[random.integers(len(PAINTS))]


def draw_vehicle(
    canvas: Canvas, kind: Kind, paint: Colour, *, way: Way, oncoming: bool = False, light: float = 1.0
) -> None:
    """Draw a vehicle whose near end, its nose if `oncoming`, follows `way`."""
    length, half = SHAPES[kind].tail, SHAPES[kind].half
    if not canvas.is_visible(way[0], length):
        return
    here, there = (np.array([x, 0.0, z]) for x, z in way)
    distance_m = here[2] - canvas.now.position[2]
    if distance_m < SHADOW_M:
        draw_shadow(canvas, here, half + 0.25, -0.35, length + 0.3)
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
