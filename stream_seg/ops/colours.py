"""Colours that differ to the eye when they are blended into an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""
Lab: TypeAlias = NDArray[np.float32]
"""float32 (n, 3), CIE L*a*b* of D65; the Euclidean distance is Delta E 1976."""

MID_GREY = 128
LEVELS = (0, 42, 85, 128, 170, 212, 255)
"""Levels of red, green and blue among which `pick_colours` chooses."""


def blended_lab(colours: Sequence[Colour], *, opacity: float = 0.5, background: int = MID_GREY) -> Lab:
    """Return the CIE L*a*b* values of colours blended into a grey background, as the overlay does."""
    rgb = np.array(colours, np.float32).reshape(-1, 1, 3) * opacity + background * (1 - opacity)
    return np.asarray(cv2.cvtColor(rgb / np.float32(255), cv2.COLOR_RGB2Lab).reshape(-1, 3), np.float32)


def pick_colours(taken: Sequence[Colour], count: int) -> list[Colour]:
    """Return colours one by one, each as far as possible from those taken, from each other and from no colour."""
    candidates, lab = _candidates()
    start = blended_lab([(MID_GREY, MID_GREY, MID_GREY), *taken])
    nearest = np.linalg.norm(lab[:, None] - start, axis=2).min(axis=1)
    picked: list[Colour] = []
    for _ in range(count):
        best = int(nearest.argmax())
        picked.append(candidates[best])
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=1))
        nearest[best] = -1  # no colour twice, however many
    return picked


@cache
def _candidates() -> tuple[list[Colour], Lab]:
    colours = [(red, green, blue) for red, green, blue in product(LEVELS, repeat=3)]
    return colours, blended_lab(colours)
