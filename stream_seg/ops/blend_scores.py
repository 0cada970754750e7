"""Blend the class scores of the past, warped to the current image, into those of the network."""

from __future__ import annotations

import numpy as np

from stream_seg.ops.jit import jit
from stream_seg.ops.motion import Confidence, Motion
from stream_seg.types import Scores

SURE = 4.0
"""Margin of the best class over the second, in the network's scores, at which the weight of the past is halved. The
road network's median is 7. Without this a nearly perfect network would lose its outlines: docs/temporal.md."""


def blend_scores(past: Scores, now: Scores, motion: Motion, confidence: Confidence, *, weight: float) -> Scores:
    """Return now + a x (warped past - now), a = weight x confidence / (1 + (margin / SURE)^2) for each pixel.

    `margin` is the difference between the two best classes of `now`: where the network is sure, the past counts less.
    past, now: float32 (C, h, w); motion (h, w, 2) and confidence (h, w) of the same size. All in one pass.
    """
    result = np.empty_like(now)
    _blend_scores(past, now, motion, confidence, np.float32(weight), np.float32(1 / SURE), result)
    return result


@jit
def _blend_scores(
    past: Scores,
    now: Scores,
    motion: Motion,
    confidence: Confidence,
    weight: np.float32,
    per_sure: np.float32,
    result: Scores,
) -> None:
    classes, height, width = now.shape
    best, second, share = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    # Indices into a plane: the left pixel of the row above and of the row below; the offset of their right pixels.
    corner, aside = np.empty((2, width), np.int64), np.empty(width, np.int64)
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
            margin = min((best[x] - second[x]) * per_sure, np.float32(1e6))  # infinite for a single class
            share[x] = weight * confidence[y, x] / (one + margin * margin)
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
                result[c, y, x] = now[c, y, x] + share[x] * (upper + (lower - upper) * down[x] - now[c, y, x])
