"""Propagate the scores of a key frame to later frames, and blend the scores of the past into those of the network.

The motion since the key frame is composed frame by frame, and the scores are warped once by all of it: warped again
from frame to frame they blur. mIoU on CamVid val (15 frames/s, the road network) with a key frame every fifth frame:
68.90 composed, 68.83 warped from frame to frame, 60.2 not moved, 68.99 with labels sampled directly from the key frame
(`propagate_labels`); 71.0 with a key frame every frame (weights of before the third part).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import jit
from stream_seg.ops.labels import AMBIGUOUS, Taps, bilinear_taps, upsampled_argmax
from stream_seg.ops.motion import Confidence, Motion, resize_motion, warp
from stream_seg.types import Labels, Scores

SURE = 4.0
"""Margin of the best class over the second, in the network's scores, at which the weight of the past is halved. The
road network's median is 7. Without this a nearly perfect network would lose its outlines: docs/temporal.md."""


def compose_motion(first: Motion, second: Motion) -> Motion:
    """Return the motion over two spans: `first` up to the previous image, `second` from there to the current one."""
    return np.asarray(cv2.add(warp(first, second), second), np.float32)


def propagate_scores(scores: Scores, motion: Motion) -> Scores:
    """Warp scores float32 (C, h, w) by a motion of any resolution, all classes in one pass.

    The result is that of `motion.warp` for each plane (bilinear, border replicated) in a quarter of the time.
    """
    motion = resize_motion(motion, scores.shape[1:])
    if min(scores.shape[1:]) < 2:
        return np.stack([warp(plane, motion) for plane in scores])
    return _propagate_scores(np.ascontiguousarray(scores), motion)


def propagate_labels(scores: Scores, unanimous: Labels, motion: Motion, *, size: tuple[int, int]) -> Labels:
    """Return the labels of warped and enlarged scores, uint8 of `size` = (H, W), each sampled once.

    scores: float32 (C, h, w); `unanimous` are its `unanimous_labels`; motion of any resolution. Where the four
    pixels around a position agree, every interpolation between them does: scores are interpolated only along outlines.
    """
    if min(scores.shape[1:]) < 2:
        return upsampled_argmax(propagate_scores(scores, motion), size)
    motion, labels = resize_motion(motion, scores.shape[1:]), np.empty(size, np.uint8)
    rows, columns = bilinear_taps(size[0], scores.shape[1]), bilinear_taps(size[1], scores.shape[2])
    _propagate_labels(np.ascontiguousarray(scores), unanimous, motion, rows, columns, labels)
    return labels


def blend_scores(past: Scores, now: Scores, motion: Motion, confidence: Confidence, *, weight: float) -> Scores:
    """Return now + a x (warped past - now), a = weight x confidence / (1 + (margin / SURE)^2) for each pixel.

    `margin` is the difference between the two best classes of `now`: where the network is sure, the past counts less.
    past, now: float32 (C, h, w); motion (h, w, 2) and confidence (h, w) of the same size. All in one pass.
    """
    result = np.empty_like(now)
    _blend_scores(past, now, motion, np.float32(weight) * confidence, result)
    return result


@jit
def _propagate_scores(scores: Scores, motion: Motion) -> Scores:
    classes, height, width = scores.shape
    result = np.empty_like(scores)
    corner = np.empty(width, np.int32)  # index of the upper left of the four pixels around a position
    across, down = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        for x in range(width):
            column = min(max(np.float32(x) + motion[y, x, 0], np.float32(0)), np.float32(width - 1))
            line = min(max(np.float32(y) + motion[y, x, 1], np.float32(0)), np.float32(height - 1))
            left, above = min(np.int32(column), width - 2), min(np.int32(line), height - 2)
            across[x], down[x] = column - np.float32(left), line - np.float32(above)
            corner[x] = above * width + left
        for c in range(classes):
            plane = scores[c].ravel()
            for x in range(width):
                i = corner[x]
                upper = plane[i] + (plane[i + 1] - plane[i]) * across[x]
                lower = plane[i + width] + (plane[i + width + 1] - plane[i + width]) * across[x]
                result[c, y, x] = upper + (lower - upper) * down[x]
    return result


@jit
def _find_two_best(scores: Scores, y: int, best: NDArray[np.float32], second: NDArray[np.float32]) -> None:
    """Store the scores of the two likeliest classes of row `y`, -inf for the second of a single class."""
    for x in range(best.size):
        best[x], second[x] = -np.inf, -np.inf
    for c in range(scores.shape[0]):
        row = scores[c, y]
        for x in range(best.size):
            lesser = min(row[x], best[x])
            best[x] = max(row[x], best[x])
            second[x] = max(lesser, second[x])


@jit
def compute_margins(scores: Scores) -> NDArray[np.float32]:
    """Return the certainty of each pixel, float32 (h, w) from 0 to 1: 1 - p2 / p1 of its two likeliest classes."""
    _, height, width = scores.shape
    margin = np.empty((height, width), np.float32)
    best, second = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        _find_two_best(scores, y, best, second)
        for x in range(width):
            margin[y, x] = np.float32(1) - np.exp(second[x] - best[x])
    return margin


@jit
def _propagate_labels(
    scores: Scores, unanimous: Labels, motion: Motion, rows: Taps, columns: Taps, labels: Labels
) -> None:
    (above, below, down), (left, right, across) = rows, columns
    (classes, height, width), (tall, wide) = scores.shape, labels.shape
    row = np.empty((2, width), np.float32)  # the motion, interpolated between two of its rows
    corner, by_x, by_y = np.empty(wide, np.int32), np.empty(wide, np.float32), np.empty(wide, np.float32)
    winners, flat = unanimous.ravel(), scores.reshape(classes, height * width)
    for y in range(tall):
        for i in range(2):
            for x in range(width):
                upper, lower = motion[above[y], x, i], motion[below[y], x, i]
                row[i, x] = upper + (lower - upper) * down[y]
        at_y = np.float32(above[y]) + down[y]
        for x in range(wide):
            dx = row[0, left[x]] + (row[0, right[x]] - row[0, left[x]]) * across[x]
            dy = row[1, left[x]] + (row[1, right[x]] - row[1, left[x]]) * across[x]
            column = min(max(np.float32(left[x]) + across[x] + dx, np.float32(0)), np.float32(width - 1))
            line = min(max(at_y + dy, np.float32(0)), np.float32(height - 1))
            x0, y0 = min(np.int32(column), width - 2), min(np.int32(line), height - 2)
            corner[x] = y0 * width + x0
            by_x[x], by_y[x] = column - np.float32(x0), line - np.float32(y0)
        for x in range(wide):
            i = corner[x]
            winner = winners[i]
            if winner == AMBIGUOUS:
                best = np.float32(-np.inf)
                for c in range(classes):
                    plane = flat[c]
                    upper = plane[i] + (plane[i + 1] - plane[i]) * by_x[x]
                    lower = plane[i + width] + (plane[i + width + 1] - plane[i + width]) * by_x[x]
                    score = upper + (lower - upper) * by_y[x]
                    if score > best:
                        best, winner = score, np.uint8(c)
            labels[y, x] = winner


@jit
def _blend_scores(past: Scores, now: Scores, motion: Motion, weight: Confidence, result: Scores) -> None:
    classes, height, width = now.shape
    best, second, share = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    # Indices into a plane: the left pixel of the row above and of the row below; the offset of their right pixels.
    corner, aside = np.empty((2, width), np.int64), np.empty(width, np.int64)
    across, down = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        _find_two_best(now, y, best, second)
        for x in range(width):
            margin = min((best[x] - second[x]) * np.float32(1 / SURE), np.float32(1e6))  # infinite for a single class
            share[x] = weight[y, x] / (np.float32(1) + margin * margin)
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
