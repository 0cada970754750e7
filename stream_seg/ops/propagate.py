"""What a key frame said, seen from a later frame.

The motion since the key frame is composed frame by frame and the scores are moved once by the whole of it: moved anew
from frame to frame they blur. On CamVid val (15 frames/s, the road network) every fifth frame a key frame gives 68.90
mIoU composed, 68.83 moved from frame to frame, 60.2 held still, and 68.99 where the labels are sampled straight from
the key frame (`moved_labels`); every frame one gives 71.0 (weights of before the third part).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import compiled
from stream_seg.ops.labels import taps
from stream_seg.ops.motion import Motion, places, warped_scores
from stream_seg.types import Labels, Scores

UNSETTLED = 255


def composed(since: Motion, step: Motion) -> Motion:
    """The motion over two spans: `since` from some picture to the one before, `step` from that one to the present."""
    far = cv2.remap(since, places(step), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(cv2.add(far, step), np.float32)


def moved(scores: Scores, motion: Motion) -> Scores:
    """`motion.warped_scores` (bilinear, the border goes on outside) in one pass over all classes, at a quarter of its
    time. scores: float32 (C, h, w); motion of the same h and w."""
    if min(scores.shape[1:]) < 2:
        return warped_scores(scores, motion)
    seen = np.empty_like(scores)
    _move(np.ascontiguousarray(scores), motion, seen)
    return seen


def settled(scores: Scores) -> Labels:
    """For every pixel of scores (C, h, w), h and w at least 2, the likeliest class of all four of it, its right, its
    lower and its lower right neighbour; UNSETTLED where they are not of one mind. uint8 (h, w), the last row and column
    of no use."""
    found = np.full(scores.shape[1:], UNSETTLED, np.uint8)
    _settle(np.ascontiguousarray(scores), found)
    return found


def moved_labels(scores: Scores, known: Labels, motion: Motion, *, size: tuple[int, int]) -> Labels:
    """The labels of moved and enlarged scores, uint8 of `size` = (H, W), sampled once.

    scores: float32 (C, h, w), h and w at least 2; `known` is what is `settled` of them; motion of the same h and w.
    Where the four pixels round a place have one winner, so has every mixture of them: only along outlines the scores
    themselves are looked at.
    """
    labels = np.empty(size, np.uint8)
    rows, columns = taps(size[0], scores.shape[1]), taps(size[1], scores.shape[2])
    _move_labels(np.ascontiguousarray(scores), known, motion, *rows, *columns, labels)
    return labels


def margins(scores: Scores) -> NDArray[np.float32]:
    """How sure the network is of each pixel, float32 (h, w) from 0 to 1: 1 - p2 / p1 of its two likeliest classes."""
    margin = np.empty(scores.shape[1:], np.float32)
    _margins(np.ascontiguousarray(scores), margin)
    return margin


@compiled
def _move(scores: Scores, motion: Motion, seen: Scores) -> None:
    classes, height, width = scores.shape
    corner = np.empty(width, np.int32)  # of the four pixels round a place, the upper left one
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
                seen[c, y, x] = upper + (lower - upper) * down[x]


@compiled
def _margins(scores: Scores, margin: NDArray[np.float32]) -> None:
    classes, height, width = scores.shape
    best, second = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height):
        for x in range(width):
            best[x], second[x] = -np.inf, -np.inf
        for c in range(classes):
            row = scores[c, y]
            for x in range(width):
                second[x] = max(min(row[x], best[x]), second[x])
                best[x] = max(row[x], best[x])
        for x in range(width):
            margin[y, x] = np.float32(1) - np.exp(second[x] - best[x])


@compiled
def _settle(scores: Scores, found: Labels) -> None:
    classes, height, width = scores.shape
    best, winner = np.empty(width, np.float32), np.empty((2, width), np.int32)
    for y in range(height):
        won, over = winner[y & 1], winner[1 - (y & 1)]
        for x in range(width):
            best[x], won[x] = -np.inf, 0
        for c in range(classes):
            row = scores[c, y]
            for x in range(width):
                better = row[x] > best[x]
                best[x] = row[x] if better else best[x]
                won[x] = c if better else won[x]
        if y:
            for x in range(width - 1):
                agree = (won[x] == won[x + 1]) & (won[x] == over[x]) & (won[x] == over[x + 1])
                found[y - 1, x] = won[x] if agree else 255


@compiled
def _move_labels(
    scores: Scores,
    known: Labels,
    motion: Motion,
    above: NDArray[np.uintp],
    below: NDArray[np.uintp],
    down: NDArray[np.float32],
    left: NDArray[np.uintp],
    right: NDArray[np.uintp],
    across: NDArray[np.float32],
    labels: Labels,
) -> None:
    classes, height, width = scores.shape
    tall, wide = labels.shape
    row = np.empty((2, width), np.float32)  # the motion between two rows of it
    corner, by_x, by_y = np.empty(wide, np.int32), np.empty(wide, np.float32), np.empty(wide, np.float32)
    settled, flat = known.ravel(), scores.reshape(classes, height * width)
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
            winner = settled[i]
            if winner == 255:
                best = np.float32(-np.inf)
                for c in range(classes):
                    plane = flat[c]
                    upper = plane[i] + (plane[i + 1] - plane[i]) * by_x[x]
                    lower = plane[i + width] + (plane[i + width + 1] - plane[i + width]) * by_x[x]
                    score = upper + (lower - upper) * by_y[x]
                    if score > best:
                        best, winner = score, np.uint8(c)
            labels[y, x] = winner
