"""Drawn surfaces: noise, and pictures with transparency that can be looked at from any distance."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[float, float, float]
"""Blue, green, red, 0-255."""


def lit(colour: Colour, light: float) -> Colour:
    """A colour times a brightness."""
    return colour[0] * light, colour[1] * light, colour[2] * light


def rng(*key: int) -> np.random.Generator:
    """The random numbers of one thing: equal keys, equal things. Numbers may be negative (places behind the start)."""
    return np.random.default_rng([number & 0xFFFFFFFF for number in key])


def cloudy(
    height: int, width: int, random: np.random.Generator, *, cell: float = 64, octaves: int = 5
) -> NDArray[np.float32]:
    """Fractal noise, float32 (height, width), mean 0 and deviation near 1; `cell` is the largest blob in pixels.

    The left and right, top and bottom edges do not meet: see `periodic`.
    """
    out = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1)
        coarse = random.standard_normal((int(height / step) + 2, int(width / step) + 2)).astype(np.float32)
        out += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return np.asarray(out / out.std(), np.float32)


def periodic(values: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """Cut `rows` rows off the end and fade them into the beginning, so that the rest repeats without a seam."""
    fade = np.linspace(1, 0, rows, dtype=np.float32).reshape(-1, *[1] * (values.ndim - 1))
    out = values[:-rows].copy()
    out[:rows] = out[:rows] * (1 - fade) + values[-rows:] * fade
    return out


@dataclass(eq=False)
class Texture:
    """A picture uint8 (h, w, 4), blue green red (times alpha) and alpha; above alpha `owns`, the pixel is its own."""

    pixels: NDArray[np.uint8]
    owns: int = 127
    _levels: dict[tuple[int, int], NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, colour: NDArray[np.float32], alpha: NDArray[np.float32] | None = None, *, owns: int = 127) -> Texture:
        """From colours (h, w, 3), 0-255, and an opacity (h, w), 0-1; opaque without one."""
        opacity = np.ones(colour.shape[:2], np.float32) if alpha is None else alpha
        stacked = np.dstack((np.clip(colour, 0, 255) * opacity[..., None], opacity * 255))
        return cls(np.ascontiguousarray(np.rint(stacked), np.uint8), owns)

    def level(self, halve_x: int, halve_y: int) -> NDArray[np.uint8]:
        """The picture with its width halved so often and its height so often, each at least 1 (a ripmap)."""
        if (halve_x, halve_y) not in self._levels:
            h, w = self.pixels.shape[:2]
            size = (max(w >> halve_x, 1), max(h >> halve_y, 1))
            # premultiplied colours average rightly over transparent parts
            self._levels[halve_x, halve_y] = np.asarray(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA))
        return self._levels[halve_x, halve_y]


@lru_cache(maxsize=768)
def shaded(
    texture: Texture, halve_x: int, halve_y: int, light: float, haze: float, haze_colour: Colour
) -> NDArray[np.uint8]:
    """A level of a picture, lit by a factor and faded by `haze`, 0-1; kept, since the next frame wants it again."""
    level = texture.level(halve_x, halve_y)
    if light == 1 and haze == 0:
        return level
    matrix = np.diag([light * (1 - haze)] * 3 + [1.0])
    matrix[:3, 3] = np.array(haze_colour) * haze / 255
    return np.asarray(cv2.transform(level, matrix), np.uint8)
