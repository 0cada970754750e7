"""Label maps: the argmax of class scores, resizing, and the share of each class."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import jit
from stream_seg.types import VOID, Classes, Labels, Mask, Scores

Taps = tuple[NDArray[np.uintp], NDArray[np.uintp], NDArray[np.float32]]
"""For each output position: the input position before it, the one after it, and the weight of the latter in [0, 1)."""
AMBIGUOUS = 255
"""Value of `unanimous_labels` where the four pixels differ."""


@lru_cache(maxsize=32)
def bilinear_taps(outputs: int, inputs: int) -> Taps:
    """Return the taps of a bilinear resize along one axis, with half-pixel centers. The arrays are not writeable.

    The same as align_corners=False in torch and half_pixel in ONNX.
    """
    position = np.clip((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0, inputs - 1)
    before = position.astype(np.uintp)
    taps = before, np.minimum(before + np.uintp(1), np.uintp(inputs - 1)), (position - before).astype(np.float32)
    for array in taps:
        array.flags.writeable = False
    return taps


@lru_cache(maxsize=32)
def first_outputs(outputs: int, inputs: int) -> NDArray[np.intp]:
    """Return the first output position behind each input position, and `outputs` at the end; not writeable."""
    first = np.searchsorted(bilinear_taps(outputs, inputs)[0], np.arange(inputs + 1, dtype=np.uintp))
    first.flags.writeable = False
    return first


def upsampled_argmax(scores: Scores, size: tuple[int, int]) -> Labels:
    """Return the class with the highest bilinearly resized score of each pixel, without storing the resized scores.

    scores: float32 (C, h, w), C at most 255. size: (H, W), larger or smaller. Returns uint8 (H, W); of equal scores the
    first class wins. Raises ValueError for other scores. Where four neighboring pixels of the scores have the same best
    class, every interpolation between them has it too: scores are interpolated only along outlines.
    """
    if scores.ndim != 3 or scores.dtype != np.float32 or not 1 <= scores.shape[0] <= 255 or 0 in scores.shape:
        raise ValueError(f"scores: expected float32 (1..255 classes, h, w), got {scores.dtype} {scores.shape}")
    labels = np.empty(size, np.uint8)
    rows, columns = bilinear_taps(size[0], scores.shape[1]), bilinear_taps(size[1], scores.shape[2])
    cells = first_outputs(size[1], scores.shape[2])
    _argmax_rows(np.ascontiguousarray(scores), rows, columns, cells, labels)
    return labels


@jit
def unanimous_labels(scores: Scores) -> Labels:
    """Return the label on which each pixel and its right, lower and lower right neighbors agree, else AMBIGUOUS.

    scores: float32 (C, h, w). Returns uint8 (h, w); the last row and column are their own neighbors.
    """
    _, height, width = scores.shape
    labels = np.empty((height, width), np.uint8)
    best, winners = np.empty(width, np.float32), np.empty((2, width + 1), np.int32)
    for y in range(height):
        _find_winners(scores, y, best, winners[y & 1])
        if y:
            _find_agreement(winners[1 - (y & 1)], winners[y & 1], labels[y - 1])
    _find_agreement(winners[(height - 1) & 1], winners[(height - 1) & 1], labels[height - 1])
    return labels


@jit
def _find_winners(scores: Scores, y: int, best: NDArray[np.float32], winners: NDArray[np.int32]) -> None:
    """Store the label of each pixel of row `y`, the last one twice. A label is as wide as a score, so that one
    comparison mask serves both. `best` is a buffer."""
    width = best.size
    for x in range(width):
        best[x], winners[x] = -np.inf, 0
    for c in range(scores.shape[0]):
        row = scores[c, y]
        for x in range(width):
            better = row[x] > best[x]
            best[x] = row[x] if better else best[x]
            winners[x] = c if better else winners[x]
    winners[width] = winners[width - 1]


@jit
def _find_agreement(upper: NDArray[np.int32], lower: NDArray[np.int32], labels: Labels) -> None:
    """Store the label of each cell between four pixels of two rows, AMBIGUOUS where these differ."""
    for x in range(labels.size):
        agree = (upper[x] == upper[x + 1]) & (upper[x] == lower[x]) & (upper[x] == lower[x + 1])
        labels[x] = upper[x] if agree else AMBIGUOUS


@jit
def _argmax_rows(scores: Scores, rows: Taps, columns: Taps, cells: NDArray[np.intp], labels: Labels) -> None:
    (above, below, down), (left, right, across) = rows, columns
    (classes, _, source_width), (height, width) = scores.shape, labels.shape
    # Winners of source row r are in slot r & 1, so both rows around an output row fit.
    source_rows, winners = np.full(2, -1), np.empty((2, source_width + 1), np.int32)
    cell_labels = np.empty(source_width, np.uint8)
    # Of the outputs in ambiguous cells of a row: position, taps, weight, and scores of the source rows around it.
    outputs, weights = np.empty(width, np.uint32), np.empty(width, np.float32)
    before, after = np.empty(width, np.uint32), np.empty(width, np.uint32)
    upper, lower = np.empty((classes, width), np.float32), np.empty((classes, width), np.float32)
    first, second = np.empty(width, np.float32), np.empty(width, np.float32)
    best, winner = np.empty(max(width, source_width), np.float32), np.empty(width, np.int32)
    count = 0
    for y in range(height):
        if y and above[y] == above[y - 1]:
            for x in range(width):  # compiles in a tenth of the time of an assignment of rows
                labels[y, x] = labels[y - 1, x]
        else:
            for r in (above[y], below[y]):
                if source_rows[r & 1] != r:
                    source_rows[r & 1] = r
                    _find_winners(scores, r, best[:source_width], winners[r & 1])
            _find_agreement(winners[above[y] & 1], winners[below[y] & 1], cell_labels)
            for x in range(width):
                labels[y, x] = cell_labels[left[x]]
            count = 0
            for j in range(source_width):
                if cell_labels[j] == AMBIGUOUS:
                    for x in range(cells[j], cells[j + 1]):
                        outputs[count], weights[count] = x, across[x]
                        before[count], after[count] = left[x], right[x]
                        count += 1
            for c in range(classes):
                for source, out in ((scores[c, above[y]], upper[c]), (scores[c, below[y]], lower[c])):
                    for k in range(count):  # gathered first, so that the arithmetic is done in vectors
                        first[k], second[k] = source[before[k]], source[after[k]]
                    for k in range(count):
                        out[k] = first[k] + (second[k] - first[k]) * weights[k]
        for k in range(count):
            best[k], winner[k] = -np.inf, 0
        for c in range(classes):
            upper_row, lower_row = upper[c], lower[c]
            for k in range(count):
                score = upper_row[k] + (lower_row[k] - upper_row[k]) * down[y]
                better = score > best[k]
                best[k] = score if better else best[k]
                winner[k] = c if better else winner[k]
        for k in range(count):
            labels[y, outputs[k]] = winner[k]


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
