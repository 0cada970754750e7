"""Noise, and textures with transparency at all scales."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[float, float, float]
"""Blue, green, red, 0-255."""


def brighten(colour: Colour, light: float) -> Colour:
    """Return a colour multiplied by a brightness."""
    return colour[0] * light, colour[1] * light, colour[2] * light


def rng(*key: int) -> np.random.Generator:
    """Return the random generator of an object: equal keys give equal objects. Keys may be negative."""
    return np.random.default_rng([number & 0xFFFFFFFF for number in key])


def fractal_noise(
    height: int, width: int, random: np.random.Generator, *, cell: float = 64, octaves: int = 5
) -> NDArray[np.float32]:
    """Return fractal noise, float32 (height, width), mean near 0, deviation 1; its largest blobs have `cell` pixels.

    Opposite edges do not match: see `make_periodic`.
    """
    out = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1)
        coarse = random.standard_normal((int(height / step) + 2, int(width / step) + 2)).astype(np.float32)
        out += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return np.asarray(out / out.std(), np.float32)


def make_periodic(values: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """Remove `rows` rows at the end and fade them into the beginning, so that the rest repeats without a seam."""
    fade = np.linspace(1, 0, rows, dtype=np.float32).reshape(-1, *[1] * (values.ndim - 1))
    out = values[:-rows].copy()
    out[:rows] = out[:rows] * (1 - fade) + values[-rows:] * fade
    return out


@dataclass(eq=False)
class Texture:
    """An image uint8 (h, w, 4): premultiplied blue green red, and alpha. Pixels with more alpha than `label_alpha` get
    the label of the texture."""

    pixels: NDArray[np.uint8]
    label_alpha: int = 127
    _levels: dict[tuple[int, int], NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_colours(
        cls, colour: NDArray[np.float32], alpha: NDArray[np.float32] | None = None, *, label_alpha: int = 127
    ) -> Texture:
        """Return a texture of colours (h, w, 3), 0 to 255, and opacity (h, w), 0 to 1; opaque by default."""
        opacity = np.ones(colour.shape[:2], np.float32) if alpha is None else alpha
        stacked = np.dstack((np.clip(colour, 0, 255) * opacity[..., None], opacity * 255))
        return cls(np.ascontiguousarray(np.rint(stacked), np.uint8), label_alpha)

    def level(self, halve_x: int, halve_y: int) -> NDArray[np.uint8]:
        """Return the texture with width and height halved this many times, each at least 1 (a ripmap)."""
        if (halve_x, halve_y) not in self._levels:
            h, w = self.pixels.shape[:2]
            size = (max(w >> halve_x, 1), max(h >> halve_y, 1))
            # premultiplied colours average correctly with transparent parts
            self._levels[halve_x, halve_y] = np.asarray(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA))
        return self._levels[halve_x, halve_y]


@lru_cache(maxsize=768)
def shade_texture(
    texture: Texture, halve_x: int, halve_y: int, light: float, haze: float, haze_colour: Colour
) -> NDArray[np.uint8]:
    """Return a level of a texture with brightness `light` and share `haze` of haze; cached for the next frames."""
    level = texture.level(halve_x, halve_y)
    if light == 1 and haze == 0:
        return level
    matrix = np.diag([light * (1 - haze)] * 3 + [1.0])
    matrix[:3, 3] = np.array(haze_colour) * haze / 255
    return np.asarray(cv2.transform(level, matrix), np.uint8)
