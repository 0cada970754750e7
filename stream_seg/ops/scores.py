"""Class scores over time: warp them along the motion, and blend those of the past into those of the network.

A warp fetches four pixels of every class for each pixel. So the classes are packed by four, which are fetched at once:

    scores (C, h, w) --> quads (C / 4, h w) of 16 bytes --fetch 4 pixels--> rows (w, 4) --interpolate--> rows (C, w)

From 11x192x320 this halves the time of a blend.
"""

from __future__ import annotations

from functools import lru_cache
from threading import get_ident

import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import jit
from stream_seg.ops.motion import Confidence, Motion, resize_motion
from stream_seg.types import Scores

Row = NDArray[np.float32]
Planes = NDArray[np.float32]
"""Scores (C, h w)."""
Quads = NDArray[np.complex128]
"""Scores of four classes at each pixel, as a number of 16 bytes, which numba moves with one instruction."""
PixelTaps = tuple[NDArray[np.uint32], NDArray[np.float32]]
"""For each pixel of a row: the indices (4, w) of the four pixels around its point, upper left, upper right, lower left,
lower right; and the weights (2, w) of the right and of the lower ones."""
Packed = tuple[NDArray[np.float32], Quads]
"""Scores packed by four classes: (C / 4, h w, 4), and the same memory as quads (C / 4, h w)."""
Buffers = tuple[PixelTaps, Quads, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], Scores]
"""Of one row: its taps, the four pixels of each tap as quads (4, w) and as numbers (4, 4 w), weights and interpolated
scores (3, w, 4) and the same memory as (3, 4 w), and the warped scores (C, w) with C rounded up to four."""

SURE = 4.0
"""Margin of the best class over the second, in the network's scores, at which the weight of the past is halved. The
road network's median is 7. Without this a nearly perfect network would lose its outlines: docs/temporal.md."""


def propagate_scores(scores: Scores, motion: Motion) -> Scores:
    """Warp scores float32 (C, h, w) by a motion of any resolution, all classes in one pass.

    The result is that of `motion.warp` for each plane (bilinear, border replicated) in a fraction of the time.
    """
    result, motion = np.empty(scores.shape, np.float32), resize_motion(motion, scores.shape[1:])
    _propagate_scores(_planes(scores), motion, *_buffers(scores.shape, get_ident()), result)
    return result


def blend_scores(past: Scores, now: Scores, motion: Motion, confidence: Confidence, *, weight: float) -> Scores:
    """Return now + a x (warped past - now), a = weight x confidence / (1 + (margin / SURE)^2) for each pixel.

    `margin` is the difference between the two best classes of `now`: where the network is sure, the past counts less.
    past, now: float32 (C, h, w); motion (h, w, 2) and confidence (h, w) of the same size. All in one pass.
    """
    result = np.empty_like(now)
    buffers = _buffers(now.shape, get_ident())
    _blend_scores(_planes(past), now, motion, np.float32(weight) * confidence, *buffers, result)
    return result


def _planes(scores: Scores) -> Planes:
    return np.ascontiguousarray(scores).reshape(len(scores), -1)


@lru_cache(maxsize=4)
def _buffers(shape: tuple[int, ...], _thread: int) -> tuple[Packed, Buffers]:
    """Return memory of a thread for packed scores and for a row. New memory would have to be cleared by the system.

    Its views are made here, because a kernel that makes them takes seconds to compile.
    """
    count, (height, width) = (shape[0] + 3) // 4, shape[1:]
    packed = np.empty((count, height * width, 4), np.float32)
    taps = np.empty((4, width), np.uint32), np.empty((2, width), np.float32)
    fetched, wide = np.empty((4, width), np.complex128), np.empty((3, width, 4), np.float32)
    warped = np.empty((4 * count, width), np.float32)
    quads = packed.reshape(count, height * width * 4).view(np.complex128)
    return (packed, quads), (taps, fetched, fetched.view(np.float32), wide, wide.reshape(3, 4 * width), warped)


@jit
def _find_two_best(scores: Scores, y: int, best: Row, second: Row) -> None:
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
def _pack(planes: Planes, packed: NDArray[np.float32]) -> None:
    """Pack scores by four classes; the last class fills up the last four."""
    last = planes.shape[0] - 1
    for q in range(packed.shape[0]):
        quad, first, second = packed[q], planes[4 * q], planes[min(4 * q + 1, last)]
        third, fourth = planes[min(4 * q + 2, last)], planes[min(4 * q + 3, last)]
        for i in range(first.size):
            quad[i, 0], quad[i, 1], quad[i, 2], quad[i, 3] = first[i], second[i], third[i], fourth[i]


@jit
def _find_taps(motion: Motion, y: int, taps: PixelTaps) -> None:
    """Store the taps of row `y`. All numbers have 32 bits, or the loops would not be vectorized."""
    height, width = motion.shape[:2]
    corners, weights = taps
    upper_left, upper_right, lower_left, lower_right = corners[0], corners[1], corners[2], corners[3]
    across, down = weights[0], weights[1]
    last_column, last_line = np.int32(width - 1), np.int32(height - 1)
    stride, one, zero, line_y = np.int32(width), np.int32(1), np.int32(0), np.float32(y)
    for x in range(width):
        across[x], down[x] = np.float32(x) + motion[y, x, 0], line_y + motion[y, x, 1]
    for x in range(width):
        column = min(max(np.float32(0), across[x]), np.float32(last_column))  # 0 for NaN
        line = min(max(np.float32(0), down[x]), np.float32(last_line))
        left, above = np.int32(column), np.int32(line)
        across[x], down[x] = column - np.float32(left), line - np.float32(above)
        right, below = one if left < last_column else zero, stride if above < last_line else zero
        corner = np.int32(above * stride) + left
        upper_left[x], upper_right[x] = corner, corner + right
        lower_left[x], lower_right[x] = corner + below, corner + below + right


@jit
def _warp_row(quads: Quads, buffers: Buffers) -> None:
    """Interpolate the scores of a row at its taps."""
    (corners, weights), fetched, numbers, wide, flat, warped = buffers
    upper_left, upper_right, lower_left, lower_right = corners[0], corners[1], corners[2], corners[3]
    ul, ur, ll, lr = fetched[0], fetched[1], fetched[2], fetched[3]
    ul4, ur4, ll4, lr4 = numbers[0], numbers[1], numbers[2], numbers[3]
    across, down, mixed, width = flat[0], flat[1], wide[2], ul.size
    for k in range(2):
        weight, copies = weights[k], wide[k]
        for x in range(width):
            copies[x, 0], copies[x, 1], copies[x, 2], copies[x, 3] = weight[x], weight[x], weight[x], weight[x]
    for q in range(quads.shape[0]):
        plane, result = quads[q], flat[2]
        for x in range(width):
            ul[x], ur[x] = plane[upper_left[x]], plane[upper_right[x]]
            ll[x], lr[x] = plane[lower_left[x]], plane[lower_right[x]]
        for i in range(4 * width):
            upper = ul4[i] + (ur4[i] - ul4[i]) * across[i]
            lower = ll4[i] + (lr4[i] - ll4[i]) * across[i]
            result[i] = upper + (lower - upper) * down[i]
        first, second, third, fourth = warped[4 * q], warped[4 * q + 1], warped[4 * q + 2], warped[4 * q + 3]
        for x in range(width):
            first[x], second[x], third[x], fourth[x] = mixed[x, 0], mixed[x, 1], mixed[x, 2], mixed[x, 3]


@jit
def _blend_scores(
    planes: Planes, now: Scores, motion: Motion, weight: Confidence, packed: Packed, buffers: Buffers, result: Scores
) -> None:
    classes, height, width = now.shape
    best, second, share = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    _pack(planes, packed[0])
    for y in range(height):
        _find_two_best(now, y, best, second)
        for x in range(width):
            margin = min((best[x] - second[x]) * np.float32(1 / SURE), np.float32(1e6))  # infinite for a single class
            share[x] = weight[y, x] / (np.float32(1) + margin * margin)
        _find_taps(motion, y, buffers[0])
        _warp_row(packed[1], buffers)
        for c in range(classes):
            row, moved, out = now[c, y], buffers[5][c], result[c, y]
            for x in range(width):
                out[x] = row[x] + share[x] * (moved[x] - row[x])


@jit
def _propagate_scores(planes: Planes, motion: Motion, packed: Packed, buffers: Buffers, result: Scores) -> None:
    classes, height, width = result.shape
    _pack(planes, packed[0])
    for y in range(height):
        _find_taps(motion, y, buffers[0])
        _warp_row(packed[1], buffers)
        for c in range(classes):
            for x in range(width):
                result[c, y, x] = buffers[5][c, x]
