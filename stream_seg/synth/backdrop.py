"""Draw the sky in one of several weathers, the distant skyline, and the ground with road, pavements and grass."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.datasets.palettes import CAMVID
from stream_seg.synth.camera import bend
from stream_seg.synth.canvas import SUBPIXEL_BITS, Canvas, to_fixed
from stream_seg.synth.surfaces import Colour, Texture, fractal_noise, rng

ROAD_M = 5.3
"""Half the width of the carriageway: a lane of 3.3 m and a parking bay of 2 m."""
BAY_M = 3.3
PAVEMENT_M = 7.7
"""Distance from the center line to the outer edge of the pavement."""
VERGE_M = 12.0
PERIOD_M = 48.0
TEXEL_M = 0.015, 0.04
FAR_M = 600.0
INFINITY_M = 1e5
SKY_SPAN, SKY_RISE, SKYLINE_RISE = 1.8, 1.0, 0.085


class Weather(NamedTuple):
    """Colours of the sky, share of clouds `cover`, contrast `sun` of lit and shaded sides, factor `exposure`."""

    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: float
    sun: float
    exposure: float

    @property
    def haze(self) -> Colour:
        """Colour that distant surfaces fade to."""
        b, g, r = self.horizon
        return b * 0.86, g * 0.85, r * 0.84


MOODS: dict[str, Weather] = {
    "bright": Weather((238, 205, 168), (252, 249, 244), (254, 253, 252), 0.45, 0.45, 1.12),
    "clear": Weather((222, 170, 118), (250, 238, 222), (255, 254, 252), 0.22, 0.6, 1.05),
    "white": Weather((226, 222, 216), (246, 244, 241), (250, 249, 248), 0.55, 0.2, 1.04),
    "overcast": Weather((168, 160, 152), (226, 222, 216), (236, 232, 228), 0.8, 0.1, 0.9),
}


def choose_weather(seed: int) -> tuple[Weather, int]:
    """Return the weather of a seed, and the side of the sun: -1 left, 1 right."""
    random = rng(seed, 2)
    return list(MOODS.values())[int(random.integers(len(MOODS)))], int(random.choice((-1, 1)))


@lru_cache(maxsize=4)
def _make_sky(seed: int) -> NDArray[np.uint8]:
    """Return the sky, uint8 (h, w, 3), SKY_SPAN to either side and SKY_RISE up, as slopes of the line of sight."""
    mood, _ = choose_weather(seed)
    height, width = 320, 1280
    rise = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    blend = np.clip(rise * 1.6, 0, 1)[..., None] ** 0.8
    sky = np.array(mood.zenith, np.float32) * blend + np.array(mood.horizon, np.float32) * (1 - blend)
    # clouds are horizontal: near the horizon they look thinner and smaller
    field = fractal_noise(512, 2048, rng(seed, 10), cell=200, octaves=7)
    over = 0.12 + rise
    across = np.linspace(-1, 1, width, dtype=np.float32)[None]
    map_x = (1024 + across / over * 240).astype(np.float32)
    map_y = np.broadcast_to(60 / over, map_x.shape).astype(np.float32)
    clouds = cv2.remap(field, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    amount = (np.clip((clouds + 2.4 * mood.cover - 1.2) * 0.7, 0, 1) * np.clip(rise * 6, 0.25, 1))[..., None]
    belly = np.clip(1 - 0.1 * np.clip(clouds - 0.4, 0, 2), 0.75, 1)[..., None]
    lit_clouds = np.array(mood.cloud, np.float32) * belly
    return np.asarray(np.clip(sky * (1 - amount) + lit_clouds * amount, 0, 255), np.uint8)


@lru_cache(maxsize=4)
def _make_skyline(seed: int) -> tuple[Texture, Texture]:
    """Return distant roofs and trees, SKYLINE_RISE up from the horizon."""
    random = rng(seed, 11)
    height, width = 64, 2560
    level = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    roofs = np.zeros(width, np.float32)
    for left in range(0, width, 24):
        roofs[left : left + int(random.integers(14, 60))] = random.uniform(0.15, 0.36) * (random.random() < 0.6)
    crowns = 0.42 + 0.16 * fractal_noise(1, width, random, cell=90, octaves=6)[0]
    grain = fractal_noise(height, width, random, cell=10, octaves=3)[..., None]
    houses = np.array((92, 98, 108), np.float32) + 14 * grain
    trees = np.array((58, 66, 66), np.float32) + 12 * grain
    soft = [np.clip((edge - level) * np.float32(height / 2) + 0.5, 0, 1, dtype=np.float32) for edge in (roofs, crowns)]
    return Texture.from_colours(houses, soft[0]), Texture.from_colours(trees, soft[1])


def draw_sky(canvas: Canvas, seed: int) -> None:
    """Paint sky and skyline. Both are infinitely far, so only rotation of the camera moves them."""
    camera = canvas.now
    ahead = np.array([[-SKY_SPAN, SKY_RISE, 1], [SKY_SPAN, SKY_RISE, 1], [-SKY_SPAN, 0, 1]]) * INFINITY_M
    here, there = (ahead + view.position for view in (camera, canvas.before))
    canvas.planes[:] = canvas.register_planes(CAMVID.index("sky"), here[None], there[None])
    sky = _make_sky(seed)
    scale_x, scale_y = sky.shape[1] / (2 * SKY_SPAN), sky.shape[0] / SKY_RISE
    shift_x, shift_y = SKY_SPAN - camera.cx / camera.focal, SKY_RISE - camera.cy / camera.focal
    to_sky = np.array([[scale_x / camera.focal, 0, scale_x * shift_x], [0, scale_y / camera.focal, scale_y * shift_y]])
    above = canvas.image[: max(math.floor(camera.cy) + 1, 0)]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if len(above):
        cv2.warpAffine(sky, to_sky, above.shape[1::-1], dst=above, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    roofs, trees = _make_skyline(seed)
    low = np.array([[-SKY_SPAN, SKYLINE_RISE, 1], [SKY_SPAN, SKYLINE_RISE, 1], [-SKY_SPAN, -0.004, 1]]) * INFINITY_M
    here, there = (low + view.position for view in (camera, canvas.before))
    canvas.draw_texture(trees, here, CAMVID.index("tree"), before=there, distance_m=330.0)
    canvas.draw_texture(roofs, here, CAMVID.index("building"), before=there, distance_m=260.0)


def _make_ground(seed: int) -> NDArray[np.float32]:
    """Return one period of the ground, (along, across, 3): across from -VERGE_M, along from 0."""
    random = rng(seed, 12)
    mood, sun_side = choose_weather(seed)
    overlap = 100
    rows, columns = round(PERIOD_M / TEXEL_M[1]) + overlap, round(2 * VERGE_M / TEXEL_M[0])
    u = (np.arange(columns, dtype=np.float32) + 0.5) * TEXEL_M[0] - VERGE_M
    v = ((np.arange(rows, dtype=np.float32) + 0.5) * TEXEL_M[1])[:, None]
    fine = rng(seed, 13).standard_normal((rows, columns)).astype(np.float32)
    patches = cv2.resize(fractal_noise(rows // 4, columns // 4, random, cell=90), (columns, rows))
    tracks = np.exp(-(((np.abs(np.abs(u) - 1.65) - 0.75) / 0.35) ** 2))
    road = 96 + 5 * fine + 5 * patches - 7 * tracks - 9 * np.clip(np.abs(u) - 4.6, 0, 0.7)
    for _ in range(5):  # filled trenches
        left, near = random.uniform(-5, 3.5), int(random.uniform(0, PERIOD_M - 6) / TEXEL_M[1])
        length = int(random.integers(30, 150))
        road[near : near + length, (u > left) & (u < left + random.uniform(0.6, 1.8))] -= 11
    out = road[..., None] * np.array((1.0, 0.985, 0.965), np.float32)
    paint = np.float32(205) + 9 * fine + 9 * patches
    dash = ((v % 6) < 3) & (np.abs(u) < 0.06)
    bays = (np.abs(np.abs(u) - BAY_M) < 0.05) & ((v % 2) < 1)
    worn = patches + 0.5 * fine > -1.6
    out[(dash | bays) & worn] = paint[(dash | bays) & worn, None] * np.array((0.97, 0.99, 1.0), np.float32)
    yellow = ((np.abs(u + 5.0) < 0.05) | (np.abs(u + 4.8) < 0.05)) & ((v > 4) & (v < 20))
    out[yellow] = (96, 178, 196)
    slabs = 128 + 4 * fine + 7 * patches - 30 * (((v % 0.8) < 0.05) | ((np.abs(u) % 0.6) < 0.025))
    slabs += 9 * np.sin(12.9 * np.floor(v / 0.8) + 78.2 * np.floor(u / 0.6))
    kerb = (np.abs(u) < ROAD_M + 0.16) * (30 - 70 * (np.abs(u) < ROAD_M + 0.04) - 25 * ((v % 0.92) < 0.05))
    paved = np.abs(u) >= ROAD_M
    out[:, paved] = ((slabs + kerb)[..., None] * np.array((0.96, 0.99, 1.0), np.float32))[:, paved]
    blades = (11 * fine + 12 * patches)[..., None] * np.array((0.6, 1, 0.9), np.float32)
    grass = np.array((52, 96, 88), np.float32) + blades
    out[:, np.abs(u) > PAVEMENT_M] = grass[:, np.abs(u) > PAVEMENT_M]
    # houses on the side of the sun cast shadows on pavement and road
    reach = 6.0 + 1.2 * np.sign(np.sin(v * 2 * np.pi / 12)) + 1.2 * np.sign(np.sin(v * 2 * np.pi / 16 + 1))
    shade = np.clip((u * sun_side - reach + 1.8) / 0.3 + 0.5, 0, 1)
    out *= 1 + 0.35 * mood.sun - (mood.sun * 0.6) * shade[..., None]
    # the rows at the end fade into the beginning, so that the ground repeats without a seam
    fade = np.linspace(1, 0, overlap, dtype=np.float32)[:, None, None]
    ground: NDArray[np.float32] = out[:-overlap]
    ground[:overlap] = ground[:overlap] * (1 - fade) + out[-overlap:] * fade
    return ground


@lru_cache(maxsize=2)
def _make_ground_levels(seed: int) -> tuple[NDArray[np.uint8], ...]:
    """Return the ground with half the width and a quarter of the length per level, padded by a row for wrapping."""
    level = np.clip(_make_ground(seed), 0, 255).astype(np.uint8)
    levels = []
    while True:
        levels.append(np.ascontiguousarray(np.pad(level, ((1, 1), (0, 0), (0, 0)), "wrap")))
        rows, columns = level.shape[:2]
        if rows < 8:
            return tuple(levels)
        level = np.asarray(cv2.resize(level, (columns // 2, rows // 4), interpolation=cv2.INTER_AREA))


def draw_ground(canvas: Canvas, seed: int) -> None:
    """Paint the ground below the horizon and register its strips."""
    camera = canvas.now
    height, width = canvas.planes.shape
    first = max(math.floor(camera.cy) + 1, 0)
    if first >= height:
        return
    cam_x, cam_y, cam_z = camera.position
    depth = np.minimum(camera.focal * cam_y / (np.arange(first, height) - camera.cy), FAR_M)
    center = bend(cam_z + depth, seed=seed)
    columns = np.arange(width, dtype=np.float32)
    levels = _make_ground_levels(seed)
    row_levels = np.clip(np.rint(np.log2(depth / camera.focal / TEXEL_M[0])), 0, len(levels) - 1).astype(int)
    for number in np.unique(row_levels):
        rows = np.flatnonzero(row_levels == number)
        z, level = depth[rows, None], levels[number]
        scale_x, scale_y = level.shape[1] / (2 * VERGE_M), (level.shape[0] - 2) / PERIOD_M
        step = z / camera.focal * scale_x
        start = (cam_x - center[rows, None] + VERGE_M) * scale_x - 0.5 - camera.cx * step
        map_x = step.astype(np.float32) * columns + start.astype(np.float32)
        map_y = np.repeat(((((cam_z + z) % PERIOD_M) * scale_y) + 0.5).astype(np.float32), width, axis=1)
        band = canvas.image[first + rows[0] : first + rows[-1] + 1]
        cv2.remap(level, map_x, map_y, cv2.INTER_LINEAR, dst=band, borderMode=cv2.BORDER_REPLICATE)
    fog = np.full((1, width, 3), canvas.haze).astype(np.uint8)
    for y, distance_m in enumerate(depth, first):
        haze = 1 - math.exp(-distance_m / canvas.clear_m)
        if haze < 0.03:
            break
        row = canvas.image[y : y + 1]
        cv2.addWeighted(row, 1 - haze, fog, haze, 0, dst=row)
    corners = np.array([[cam_x, 0, cam_z + 2], [cam_x + 10, 0, cam_z + 2], [cam_x, 0, cam_z + 40]])
    # CamVid counts grass as vegetation
    canvas.planes[first:] = canvas.register_planes(CAMVID.index("tree"), corners[None])
    rows = np.arange(first, height)
    for edge, label in ((PAVEMENT_M, "pavement"), (ROAD_M, "road")):
        left, right = (camera.cx + camera.focal * (center + side * edge - cam_x) / depth for side in (-1, 1))
        outline = np.stack((np.concatenate((left, right[::-1])), np.concatenate((rows, rows[::-1]))), axis=1)
        number = canvas.register_planes(CAMVID.index(label), corners[None])
        cv2.fillPoly(canvas.planes, [to_fixed(outline)], number, cv2.LINE_8, SUBPIXEL_BITS)
