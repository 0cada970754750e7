"""Random surfaces: noise, textures with transparency at all scales, and meshes of plane faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.camera import Points

Colour: TypeAlias = tuple[float, float, float]
"""Blue, green, red, 0-255."""
Part: TypeAlias = tuple[Sequence[Sequence[float]], Colour]
"""Corners of a face, (X, Y, Z) each, and its colour. The first, second and last corner must not be collinear."""


def parse_colours(text: str) -> tuple[Colour, ...]:
    """Return the colours of words `rrggbb`."""
    rgb = [bytes.fromhex(word) for word in text.split()]
    return tuple((blue, green, red) for red, green, blue in rgb)


def brighten(colour: Colour, light: float) -> Colour:
    """Return a colour multiplied by a brightness."""
    return colour[0] * light, colour[1] * light, colour[2] * light


def rng(*key: int) -> np.random.Generator:
    """Return the random generator of an object: equal keys give equal objects. Keys may be negative."""
    return np.random.default_rng([number & 0xFFFFFFFF for number in key])


def fractal_noise(
    height: int, width: int, random: np.random.Generator, *, cell: float = 64, octaves: int = 5
) -> NDArray[np.float32]:
    """Return fractal noise, float32 (height, width), mean near 0, deviation 1; its largest blobs have `cell` pixels."""
    out = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1)
        coarse = random.standard_normal((int(height / step) + 2, int(width / step) + 2)).astype(np.float32)
        out += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return np.asarray(out / out.std(), np.float32)


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


@dataclass(frozen=True, eq=False)
class Mesh:
    """Corners of all faces, (N, 3); the end of each face among them; indices of three corners of each face, (F, 3);
    colours (F, 3)."""

    points: Points
    ends: list[int]
    plane_corners: NDArray[np.intp]
    colours: NDArray[np.float64]

    @classmethod
    def from_parts(cls, parts: Sequence[Part]) -> Mesh:
        """Return a mesh of the faces `parts`."""
        ends = np.cumsum([len(corners) for corners, _ in parts])
        starts = ends - [len(corners) for corners, _ in parts]
        points = np.array([corner for corners, _ in parts for corner in corners], np.float64)
        three = np.stack((starts, starts + 1, ends - 1), axis=1)
        return cls(points, ends.tolist(), three, np.array([colour for _, colour in parts], np.float64))
