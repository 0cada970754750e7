"""A procedurally drawn drive through a British town, with its exact labels and motion.

    render(seed, k) = camera -> sky, ground (backdrop) -> things along the street (street), far before near
                      -> blur, response and grain of a camera (weather)

Frame k depends on the arguments of `render` alone, whatever was drawn before it.
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
from stream_seg.synth.street import things
from stream_seg.synth.texture import rng
from stream_seg.synth.vehicles import draw_crossing
from stream_seg.synth.weather import film_grain, weather
from stream_seg.types import Image, Labels

__all__ = ["Drawing", "Move", "render"]

GRAIN_MARGIN = 64


@dataclass(frozen=True)
class Drawing:
    """A rendered frame: its picture, and a canvas that can still tell labels and motion."""

    image: Image
    canvas: Canvas

    def labels(self) -> Labels:
        """CamVid's class of every pixel, uint8 (H, W)."""
        return self.canvas.labels()

    def motion(self) -> NDArray[np.float32]:
        """Where each pixel's point stood in frame k - back, float32 (H, W, 2): (dx, dy) in pixels to add to (x, y)."""
        return self.canvas.motion()


@lru_cache(maxsize=2)
def _grain(height: int, width: int, noise: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return film_grain((height + GRAIN_MARGIN, width + GRAIN_MARGIN), noise, seed)


def _expose(picture: Image, tone: NDArray[np.uint8], noise: float, seed: int, k: int) -> Image:
    """What the camera makes of the light: a slight blur, its response, its grain (another cut of it in each frame)."""
    image = np.asarray(cv2.LUT(cv2.GaussianBlur(picture, (3, 3), 0.55), tone), np.uint8)
    if noise > 0:
        height, width = image.shape[:2]
        top, left = rng(seed, 4, k).integers(0, GRAIN_MARGIN, 2)
        more, less = (g[top : top + height, left : left + width] for g in _grain(height, width, noise, seed))
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
    """Draw frame `k` of the drive of `seed`. `shake` in pixels of a picture 640 wide, `noise` in grey levels.

    Motion is since frame k - `back`. With `crossing` a van drives across the view; `light` multiplies the exposure.
    """
    mood, _ = weather(seed)
    t, step = k / rate, back / rate
    now, before = (camera_at(time, seed=seed, size=(height, width), move=move, shake=shake) for time in (t, t - step))
    canvas = Canvas(np.empty((height, width, 3), np.uint8), now, before, mood.haze)
    draw_sky(canvas, seed)
    draw_ground(canvas, seed)
    for _, paint in things(seed, t, step, now.position[2]):
        paint(canvas)
    if crossing:
        draw_crossing(canvas, t, step)
    tone = replace(mood, exposure=mood.exposure * light).tone()
    return Drawing(_expose(canvas.image, tone, noise, seed, k), canvas)
