"""Label maps: the argmax of class scores, resizing, and the share of each class."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import jit
from stream_seg.types import VOID, Classes, Labels, Mask, Scores

Taps = tuple[NDArray[np.uintp], NDArray[np.uintp], NDArray[np.float32]]
"""For each output position: the input position before it, the one after it, and the weight of the latter in [0, 1)."""


def bilinear_taps(outputs: int, inputs: int) -> Taps:
    """Return the taps of a bilinear resize along one axis, with half-pixel centers.

    The same as align_corners=False in torch and half_pixel in ONNX.
    """
    position = np.clip((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0, inputs - 1)
    before = position.astype(np.uintp)
    return before, np.minimum(before + np.uintp(1), np.uintp(inputs - 1)), (position - before).astype(np.float32)


def upsampled_argmax(scores: Scores, size: tuple[int, int]) -> Labels:
    """Return the class with the highest bilinearly resized score of each pixel, without storing the resized scores.

    scores: float32 (C, h, w), C at most 255. size: (H, W), larger or smaller. Returns uint8 (H, W); of equal scores the
    first class wins. Raises ValueError for other scores.
    """
    if scores.ndim != 3 or scores.dtype != np.float32 or not 1 <= scores.shape[0] <= 255 or 0 in scores.shape:
        raise ValueError(f"scores: expected float32 (1..255 classes, h, w), got {scores.dtype} {scores.shape}")
    labels = np.empty(size, np.uint8)
    rows, columns = bilinear_taps(size[0], scores.shape[1]), bilinear_taps(size[1], scores.shape[2])
    _argmax_rows(np.ascontiguousarray(scores), rows, columns, labels)
    return labels


@jit
def _argmax_rows(scores: Scores, rows: Taps, columns: Taps, labels: Labels) -> None:
    (above, below, down), (left, right, across) = rows, columns
    classes, (height, width) = scores.shape[0], labels.shape
    # Source rows resized to the output's width. Row r is in slot r & 1, so both rows that an output row needs fit.
    wide = np.empty((2, classes, width), np.float32)
    source_rows = np.full(2, -1)
    # The winner is as wide as a float32, so that one comparison mask serves both.
    best, winner = np.empty(width, np.float32), np.empty(width, np.int32)
    for y in range(height):
        for r in (above[y], below[y]):
            if source_rows[r & 1] != r:
                source_rows[r & 1] = r
                for c in range(classes):
                    row, out = scores[c, r], wide[r & 1, c]
                    for x in range(width):
                        out[x] = row[left[x]] + (row[right[x]] - row[left[x]]) * across[x]
        for x in range(width):
            best[x], winner[x] = -np.inf, 0
        for c in range(classes):
            upper, lower = wide[above[y] & 1, c], wide[below[y] & 1, c]
            for x in range(width):
                score = upper[x] + (lower[x] - upper[x]) * down[y]
                better = score > best[x]
                best[x] = score if better else best[x]
                winner[x] = c if better else winner[x]
        for x in range(width):
            labels[y, x] = winner[x]


def resize_labels(labels: Labels, size: tuple[int, int]) -> Labels:
    """Resize labels to `size` = (H, W) by nearest neighbor: no class appears that was not there before."""
    if labels.shape == size:
        return labels
    return np.asarray(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def mark_void(labels: Labels, unknown: Mask) -> Labels:
    """Return labels that are void, 255, where the mask is set; it has any size."""
    enlarged = cv2.resize(unknown, labels.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.max(labels, cv2.threshold(enlarged, 127, VOID, cv2.THRESH_BINARY)[1]), np.uint8)


def class_shares(labels: Labels, classes: Classes) -> NDArray[np.float32]:
    """Return the share of the image that each class covers, float32 (C,), 0 to 1; the rest up to 1 is void."""
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    return (counts[: len(classes)] / labels.size).astype(np.float32)
