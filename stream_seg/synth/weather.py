"""The weather of a scene: one of several moods of the sky, chosen by the seed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.texture import Colour, rng


@dataclass(frozen=True)
class Weather:
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

    def tone(self) -> NDArray[np.uint8]:
        """Return the response of the camera, a table uint8 (1, 256) that deepens shadows and clips highlights."""
        x = np.arange(256) / 255 * self.exposure
        return np.asarray(np.clip(255 * x**1.18 * 1.06, 0, 255), np.uint8)[None]


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


def make_film_grain(shape: tuple[int, int], deviation: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return sensor noise, mostly of lightness, as two images to add and to subtract: uint8 (H, W, 3) each."""
    random = rng(seed, 3)
    grey = random.standard_normal((*shape, 1), np.float32)
    colour = cv2.GaussianBlur(random.standard_normal((*shape, 3), np.float32), (3, 3), 0.8)
    grain = np.rint(deviation * (0.85 * grey + colour))
    return np.clip(grain, 0, 255).astype(np.uint8), np.clip(-grain, 0, 255).astype(np.uint8)
