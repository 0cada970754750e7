"""Propagate the labels of a key frame to later frames.

The motion since the key frame is composed frame by frame, and the scores are warped once by all of it: warped again
from frame to frame they blur. mIoU on CamVid val (15 frames/s, the road network) with a key frame every fifth frame:
68.90 composed, 68.83 warped from frame to frame, 60.2 not moved, 68.99 with labels sampled directly from the key frame
(`propagate_labels`); 71.0 with a key frame every frame (weights of before the third part).
"""

from __future__ import annotations

import cv2
import numpy as np

from stream_seg.ops.jit import jit
from stream_seg.ops.labels import AMBIGUOUS, Taps, bilinear_taps
from stream_seg.ops.motion import Motion, resize_motion, warp
from stream_seg.types import Labels, Scores


def compose_motion(first: Motion, second: Motion) -> Motion:
    """Return the motion over two spans: `first` up to the previous image, `second` from there to the current one."""
    return np.asarray(cv2.add(warp(first, second), second), np.float32)


def propagate_labels(scores: Scores, unanimous: Labels, motion: Motion, *, size: tuple[int, int]) -> Labels:
    """Return the labels of warped and enlarged scores, uint8 of `size` = (H, W), each sampled once.

    scores: float32 (C, h, w); `unanimous` are its `unanimous_labels`; motion of any resolution. Where the four
    pixels around a position agree, every interpolation between them does: scores are interpolated only along outlines.
    """
    motion, labels = resize_motion(motion, scores.shape[1:]), np.empty(size, np.uint8)
    rows, columns = bilinear_taps(size[0], scores.shape[1]), bilinear_taps(size[1], scores.shape[2])
    _propagate_labels(np.ascontiguousarray(scores), unanimous, motion, rows, columns, labels)
    return labels


@jit
def _propagate_labels(
    scores: Scores, unanimous: Labels, motion: Motion, rows: Taps, columns: Taps, labels: Labels
) -> None:
    (above, below, down), (left, right, across) = rows, columns
    (classes, height, width), (tall, wide) = scores.shape, labels.shape
    row = np.empty((2, width), np.float32)  # the motion, interpolated between two of its rows
    points_x, points_y = np.empty(wide, np.float32), np.empty(wide, np.float32)
    corners = np.empty(wide, np.uint32)
    # Of the ambiguous outputs of a row: position, indices of the four pixels around its point, and weights.
    outputs, by_x, by_y = np.empty(wide, np.uint32), np.empty(wide, np.float32), np.empty(wide, np.float32)
    upper_left, upper_right = np.empty(wide, np.uint32), np.empty(wide, np.uint32)
    lower_left, lower_right = np.empty(wide, np.uint32), np.empty(wide, np.uint32)
    a, b = np.empty(wide, np.float32), np.empty(wide, np.float32)
    c, d = np.empty(wide, np.float32), np.empty(wide, np.float32)
    best, winner = np.empty(wide, np.float32), np.empty(wide, np.int32)
    cells, planes = unanimous.ravel(), scores.reshape(classes, height * width)
    last_column, last_line, stride = np.float32(width - 1), np.float32(height - 1), np.int32(width)
    for y in range(tall):
        for i in range(2):
            for x in range(width):
                upper, lower = motion[above[y], x, i], motion[below[y], x, i]
                row[i, x] = upper + (lower - upper) * down[y]
        line = np.float32(above[y]) + down[y]
        dx, dy = row[0], row[1]
        for x in range(wide):
            points_x[x] = np.float32(left[x]) + across[x] + (dx[left[x]] + (dx[right[x]] - dx[left[x]]) * across[x])
            points_y[x] = line + (dy[left[x]] + (dy[right[x]] - dy[left[x]]) * across[x])
        for x in range(wide):
            points_x[x] = min(max(np.float32(0), points_x[x]), last_column)  # 0 for NaN
            points_y[x] = min(max(np.float32(0), points_y[x]), last_line)
            corners[x] = np.int32(np.int32(points_y[x]) * stride) + np.int32(points_x[x])
        count = 0
        for x in range(wide):
            label = cells[corners[x]]
            labels[y, x] = label
            outputs[count] = x
            count += label == AMBIGUOUS
        for k in range(count):
            x = outputs[k]
            i = corners[x]
            by_x[k] = points_x[x] - np.float32(np.int32(points_x[x]))
            by_y[k] = points_y[x] - np.float32(np.int32(points_y[x]))
            step = np.uint32(points_x[x] < last_column)
            upper_left[k], upper_right[k] = i, i + step
            i += np.uint32(width) if points_y[x] < last_line else np.uint32(0)
            lower_left[k], lower_right[k] = i, i + step
        for k in range(count):
            best[k], winner[k] = -np.inf, 0
        for label in range(classes):
            plane = planes[label]
            for k in range(count):
                a[k], b[k] = plane[upper_left[k]], plane[upper_right[k]]
                c[k], d[k] = plane[lower_left[k]], plane[lower_right[k]]
            for k in range(count):
                upper, lower = a[k] + (b[k] - a[k]) * by_x[k], c[k] + (d[k] - c[k]) * by_x[k]
                score = upper + (lower - upper) * by_y[k]
                better = score > best[k]
                best[k] = score if better else best[k]
                winner[k] = label if better else winner[k]
        for k in range(count):
            labels[y, outputs[k]] = winner[k]
