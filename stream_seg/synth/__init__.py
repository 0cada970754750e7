"""Render a procedural drive through a British town, with exact labels and motion.

    render(seed, k) = camera -> sky, ground (backdrop) -> objects along the street (street), far before near
                      -> blur, response and grain of a camera (weather)

Frame k depends only on the arguments of `render`, not on earlier frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.backdrop import draw_ground, draw_sky
from stream_seg.synth.camera import Move, camera_at
from stream_seg.synth.canvas import Canvas
from stream_seg.synth.street import list_items
from stream_seg.synth.texture import rng
from stream_seg.synth.vehicles import draw_crossing
from stream_seg.synth.weather import choose_weather, make_film_grain
from stream_seg.types import Image, Labels

__all__ = ["Drawing", "Move", "render"]

GRAIN_MARGIN = 64


@dataclass(frozen=True)
class Drawing:
    """A rendered frame: its image, and the canvas from which labels and motion are computed."""

    image: Image
    canvas: Canvas

    def labels(self) -> Labels:
        """Return the CamVid class of every pixel, uint8 (H, W)."""
        return self.canvas.labels()

    def motion(self) -> NDArray[np.float32]:
        """Return the motion since frame k - back, float32 (H, W, 2): (dx, dy) in pixels to add to (x, y)."""
        return self.canvas.motion()


@lru_cache(maxsize=2)
def _film_grain(height: int, width: int, noise: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return make_film_grain((height + GRAIN_MARGIN, width + GRAIN_MARGIN), noise, seed)


def _expose(scene: Image, tone: NDArray[np.uint8], noise: float, seed: int, k: int) -> Image:
    """Apply a slight blur, the response of the camera and its grain, which is shifted in each frame."""
    image = np.asarray(cv2.LUT(cv2.GaussianBlur(scene, (3, 3), 0.55), tone), np.uint8)
    if noise > 0:
        height, width = image.shape[:2]
        top, left = rng(seed, 4, k).integers(0, GRAIN_MARGIN, 2)
        more, less = (g[top : top + height, left : left + width] for g in _film_grain(height, width, noise, seed))
        cv2.add(image, more, dst=image)
        cv2.subtract(image, less, dst=image)
    return image


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
) -> Drawing:
    """Render frame `k` of the drive of `seed`. `shake` is in pixels of an image 640 wide, `noise` in grey levels.

    Motion is that since frame k - `back`. With `crossing` a van crosses the view; `light` multiplies the exposure.
    """
    mood, _ = choose_weather(seed)
    t, step = k / rate, back / rate
    now, before = (camera_at(time, seed=seed, size=(height, width), move=move, shake=shake) for time in (t, t - step))
    canvas = Canvas(np.empty((height, width, 3), np.uint8), now, before, mood.haze)
    draw_sky(canvas, seed)
    draw_ground(canvas, seed)
    for _, paint in list_items(seed, t, step, now.position[2]):
        paint(canvas)
    if crossing:
        draw_crossing(canvas, t, step)
    tone = replace(mood, exposure=mood.exposure * light).tone()
    return Drawing(_expose(canvas.image, tone, noise, seed, k), canvas)
