"""Render a procedural drive through a British town, with exact labels and motion.

    render(seed, k) = camera -> sky, ground (backdrop) -> objects along the street (street), far before near
                      -> blur, response and grain of a camera

Frame k depends only on the arguments of `render`, not on earlier frames.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.backdrop import choose_weather, draw_ground, draw_sky
from stream_seg.synth.camera import Move, camera_at
from stream_seg.synth.canvas import Canvas
from stream_seg.synth.street import list_items
from stream_seg.synth.surfaces import rng
from stream_seg.synth.vehicles import draw_crossing

__all__ = ["Canvas", "Move", "render"]

GRAIN_MARGIN = 64


@lru_cache(maxsize=2)
def _make_grain(height: int, width: int, noise: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return sensor noise, mostly of lightness, as two images to add and to subtract: uint8 (H, W, 3) each."""
    random = rng(seed, 3)
    grey = random.standard_normal((height, width, 1), np.float32)
    colour = cv2.GaussianBlur(random.standard_normal((height, width, 3), np.float32), (3, 3), 0.8)
    grain = np.rint(noise * (0.85 * grey + colour))
    return np.clip(grain, 0, 255).astype(np.uint8), np.clip(-grain, 0, 255).astype(np.uint8)


def render(
    seed: int,
    k: int,
    width: int = 640,
    height: int = 360,
    *,
    rate: float = 30.0,
    move: Move = "drive",
    shake: float = 1.0,
    noise: float = 2.0,
    back: int = 1,
    crossing: bool = False,
    light: float = 1.0,
) -> Canvas:
    """Render frame `k` of the drive of `seed`: its `image`, CamVid `labels()` and `motion()` since frame k - `back`.

    `shake` is in pixels of an image 640 wide, `noise` in grey levels. With `crossing` a van crosses the view; `light`
    multiplies the exposure.
    """
    mood, _ = choose_weather(seed)
    t, step = k / rate, back / rate
    now, before = (camera_at(time, seed=seed, size=(height, width), move=move, shake=shake) for time in (t, t - step))
    canvas = Canvas(np.empty((height, width, 3), np.uint8), now, before, mood.haze)
    draw_sky(canvas, seed)
    draw_ground(canvas, seed)
    for _, paint in list_items(seed, now, before):
        paint(canvas)
    if crossing:
        draw_crossing(canvas, t, step)
    # The response of the camera deepens shadows and clips highlights.
    response = 255 * (np.arange(256) / 255 * (mood.exposure * light)) ** 1.18 * 1.06
    table = np.asarray(np.clip(response, 0, 255), np.uint8)[None]
    canvas.image = np.asarray(cv2.LUT(cv2.GaussianBlur(canvas.image, (3, 3), 0.55), table), np.uint8)
    if noise > 0:
        top, left = rng(seed, 4, k).integers(0, GRAIN_MARGIN, 2)
        grain = _make_grain(height + GRAIN_MARGIN, width + GRAIN_MARGIN, noise, seed)
        more, less = (part[top : top + height, left : left + width] for part in grain)
        cv2.add(canvas.image, more, dst=canvas.image)
        cv2.subtract(canvas.image, less, dst=canvas.image)
    return canvas
