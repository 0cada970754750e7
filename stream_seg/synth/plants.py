"""Textures of trees, hedges and fences, with transparency."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.texture import Texture, fractal_noise, rng

TREES = 8


def _draw_branch(
    wood: NDArray[np.uint8],
    start: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    random: np.random.Generator,
    shortest: float,
) -> None:
    """Draw a branch with two or three thinner ones, recursively, down to `shortest` pixels."""
    end = start[0] + length * math.cos(angle), start[1] - length * math.sin(angle)
    ends = [(round(x * 8), round(y * 8)) for x, y in (start, end)]
    cv2.line(wood, ends[0], ends[1], (255,), max(round(width), 1), cv2.LINE_AA, 3)
    if length < shortest:
        return
    for turn in random.normal((-0.42, 0.42, 0.0)[: int(random.integers(2, 4))], 0.22):
        _draw_branch(wood, end, angle + turn, length * random.uniform(0.68, 0.84), width * 0.64, random, shortest)


def _draw_tree(seed: int, index: int) -> Texture:
    """Return a bare or leafy tree, 6 by 8 meters."""
    random = rng(seed, 30, index)
    height, width = 320, 240
    wood = np.zeros((height, width), np.uint8)
    _draw_branch(
        wood,
        (width / 2, height),
        math.pi / 2,
        56 if index % 2 else 62,
        random.uniform(9, 13),
        random,
        18 if index % 2 else 10,
    )
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    crown = 1 - np.hypot((x - width / 2) / (width * 0.42), (y - height * 0.4) / (height * 0.37)) ** 3
    # no branch may be cut off at the edge of the texture
    alpha = wood.astype(np.float32) / 255 * np.where(y < height * 0.75, np.clip((crown + 0.6) * 2.5, 0, 1), 1)
    bark = np.array((46, 54, 60), np.float32) * random.uniform(0.7, 1.2)
    colour = np.broadcast_to(bark, (height, width, 3)) * (
        1 + 0.12 * fractal_noise(height, width, random, cell=8)[..., None]
    )
    if index % 2 == 0:
        # a brown veil around the branches for twigs too thin to draw
        veil = np.clip(cv2.GaussianBlur(alpha, (0, 0), 6) * 1.7, 0, 0.5) * (
            fractal_noise(height, width, random, cell=5, octaves=2) > -0.2
        )
        veil *= np.clip(crown * 3 + 0.9, 0, 1)
        return Texture.from_colours(colour, np.maximum(alpha, veil), label_alpha=50)
    clumps = fractal_noise(height, width, random, cell=48, octaves=6)
    leaves = np.clip((crown * 1.5 + 0.62 * clumps) * 2.5, 0, 1)
    shade = (
        0.8 + 0.28 * clumps + 0.45 * (0.5 - y / height) + 0.2 * fractal_noise(height, width, random, cell=4, octaves=2)
    )
    leaf = np.array(((38, 66, 52), (30, 54, 50), (40, 74, 78))[index // 2 % 3], np.float32)
    foliage = np.clip(shade, 0.25, 1.8)[..., None] * leaf
    mixed = foliage * leaves[..., None] + colour * (1 - leaves[..., None])
    return Texture.from_colours(np.asarray(mixed, np.float32), np.maximum(alpha, leaves), label_alpha=50)


@lru_cache(maxsize=4)
def make_trees(seed: int) -> tuple[Texture, ...]:
    """Return the trees of a town: bare ones at even indices, leafy ones at odd."""
    return tuple(_draw_tree(seed, index) for index in range(TREES))


@lru_cache(maxsize=4)
def make_hedge(seed: int) -> Texture:
    """Return 10 meters of a hedge with a ragged upper edge."""
    random = rng(seed, 31)
    height, width = 64, 320
    clumps = fractal_noise(height, width, random, cell=20, octaves=5)
    y = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    alpha = np.clip((0.88 - y + 0.05 * clumps) * 12, 0, 1)
    colour = np.array((34, 58, 50), np.float32) * np.clip(0.65 + 0.5 * y + 0.3 * clumps, 0.2, 2)[..., None]
    return Texture.from_colours(colour, np.asarray(alpha, np.float32), label_alpha=80)


@lru_cache(maxsize=1)
def make_fences() -> tuple[Texture, Texture]:
    """Return 10 meters of iron railings and of a boarded fence. The gaps of railings are labelled fence as well."""
    height, width = 48, 480
    bars = np.full((height, width), 0.06, np.float32)
    bars[:, ::6] = bars[:, 1::6] = 1
    bars[4:7] = bars[-7:-4] = 1
    iron = np.full((height, width, 3), 34, np.float32)
    boards = np.full((height, width, 3), (62, 82, 104), np.float32)
    boards *= 1 + 0.12 * np.sin(np.arange(width) // 7 * 4.7)[None, :, None]
    boards[:, ::7] *= 0.5
    boards[:, ::96] = boards[:, 1::96] = boards[:, 2::96] = (96, 100, 104)
    boards[:4] *= 0.7
    return Texture.from_colours(iron, bars, label_alpha=8), Texture.from_colours(boards)


@lru_cache(maxsize=1)
def make_shadow() -> Texture:
    """Return a soft dark spot, the shadow below an object."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j].astype(np.float32)
    return Texture.from_colours(
        np.zeros((64, 64, 3), np.float32), np.clip(1.35 - (x**4 + y**4) ** 0.5 * 1.5, 0, 0.75) ** 1.2
    )
