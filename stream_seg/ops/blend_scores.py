"""Class scores of the past, seen from the present and mixed into it."""

from __future__ import annotations

import numpy as np

from stream_seg.ops.jit import compiled
from stream_seg.ops.motion import Confidence, Motion
from stream_seg.types import Scores

SURE = 4.0
"""Margin of the best class over the next, in the network's scores, at which the past counts half; the road network's
median is 7. It is what lets a nearly perfect network keep its outlines: docs/temporal.md."""


def carried_on(past: Scores, now: Scores, motion: Motion, believed: Confidence, *, weight: float) -> Scores:
    """now + a x (past moved here - now), where a = weight x confidence / (1 + (margin / SURE)^2) of each pixel.

    `margin` is by how much the network prefers its best class to the next one, now: where it is sure, the past has less
    to say. past, now: float32 (C, h, w); motion (h, w, 2) and believed (h, w) at their size. All in one pass.
    """
    mixed = np.empty_like(now)
    _mix(past, now, motion, believed, np.float32(weight), np.float32(1 / SURE), mixed)
    return mixed


@compiled
def _mix(
    past: Scores,
    now: Scores,
    motion: Motion,
    believed: Confidence,
    weight: np.float32,
    per_sure: np.float32,
    mixed: Scores,
) -> None:
    classes, height, width = now.shape
    best, second, share = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    corner, aside = np.empty((2, width), np.int64), np.empty(width, np.int64)  # above, below; one column on
    across, down = np.empty(width, np.float32), np.empty(width, np.float32)
    one = np.float32(1)
    for y in range(height):
        for x in range(width):
            best[x], second[x] = -np.inf, -np.inf
        for c in range(classes):
            row = now[c, y]
            for x in range(width):
                lesser = min(row[x], best[x])
                best[x] = max(row[x], best[x])
                second[x] = max(lesser, second[x])
        for x in range(width):
            margin = min((best[x] - second[x]) * per_sure, np.float32(1e6))  # of a single class it is infinite
            share[x] = weight * believed[y, x] / (one + margin * margin)
            column = min(max(np.float32(x) + motion[y, x, 0], np.float32(0)), np.float32(width - 1))
            line = min(max(np.float32(y) + motion[y, x, 1], np.float32(0)), np.float32(height - 1))
            left, above = np.int64(column), np.int64(line)
            across[x], down[x] = column - np.float32(left), line - np.float32(above)
            corner[0, x] = above * width + left
            corner[1, x] = min(above + 1, height - 1) * width + left
            aside[x] = min(left + 1, width - 1) - left
        for c in range(classes):
            plane = past[c].ravel()
            for x in range(width):
                i, j = corner[0, x], corner[1, x]
                upper = plane[i] + (plane[i + aside[x]] - plane[i]) * across[x]
                lower = plane[j] + (plane[j + aside[x]] - plane[j]) * across[x]
                mixed[c, y, x] = now[c, y, x] + share[x] * (upper + (lower - upper) * down[x] - now[c, y, x])
