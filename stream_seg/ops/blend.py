"""Blend class colours into an image, in place and in one pass.

Labels have the network's size and the image is larger: enlarged by nearest neighbor they would show as blocks. So the
opacity-weighted colour (`ink`) and the remaining share of the image (`keep`) are interpolated between labels:

    labels (h, w) --table--> ink, keep --across--> rows of the image's width --down--> image * keep + ink

From one row of the image to the next, ink and keep change only at pixels between labels that differ: these are listed
for each row of labels, and only they are interpolated. The arithmetic is 16-bit fixed point; the high half of a product
is one instruction for 16 or 32 numbers at a time.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import jit
from stream_seg.ops.labels import bilinear_taps, first_outputs
from stream_seg.types import Image, Labels

U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
Rows = tuple[NDArray[np.uintp], NDArray[np.uintp], U16]
Columns = tuple[NDArray[np.intp], U16]
Changed = tuple[NDArray[np.uint8], NDArray[np.uint64]]
ONE = 65535
"""The weight 1.0 in fixed point."""


def blend(
    image: Image, labels: Labels, colours: NDArray[np.uint8], opacity: NDArray[np.floating], *, soft: bool = True
) -> None:
    """Blend the colours of `labels` into `image`, in place.

    image: uint8 (H, W, 3), C-contiguous. labels: uint8 (h, w) of any size. colours: uint8 (256, 3) by label, in the
    channel order of the image. opacity: (256,) by label, from 0 (pixels stay) to 1 (pixels are replaced). soft=False
    keeps the hard edges of the labels. Raises ValueError for other arrays, and for an image that cannot be written.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if not (image.flags.writeable and image.flags.c_contiguous):
        raise ValueError("image: expected a writeable, C-contiguous array; copy it first")
    if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels: expected uint8 (h, w), got {labels.dtype} {labels.shape}")
    (height, width), (rows, columns) = image.shape[:2], labels.shape
    above, below, _ = bilinear_taps(height, rows)
    down, across = _fixed_point_weights(height, rows, soft), _fixed_point_weights(width, columns, soft)
    ink = np.rint(colours * (opacity[:, None] * 256.0)).astype(np.uint16)  # 8.8 bits
    table = np.column_stack([ink, np.rint((1.0 - opacity) * ONE).astype(np.uint16)])
    labels, pixels, cells = (
        np.ascontiguousarray(labels),
        image.reshape(height, 3 * width),
        first_outputs(width, columns),
    )
    changed = np.zeros((columns + 7) // 8 * 8, np.uint8)
    unlike = ~labels[above[0]]  # a row of labels that differs from the first one everywhere
    _blend_rows(
        pixels, labels, unlike, table, (above, below, down), (cells, across), (changed, changed.view(np.uint64))
    )


@lru_cache(maxsize=32)
def _fixed_point_weights(outputs: int, inputs: int, soft: bool) -> U16:
    """Return the weights of `bilinear_taps`; they are 0 or 1 unless soft."""
    weights = bilinear_taps(outputs, inputs)[2]
    return np.rint((weights if soft else weights >= 0.5) * np.float32(ONE)).astype(np.uint16)


@jit
def _high(a: np.uint16, b: np.uint16) -> np.uint16:
    return np.uint16((np.uint32(a) * np.uint32(b)) >> np.uint32(16))


@jit
def _interpolate(a: np.uint16, b: np.uint16, weight: np.uint16) -> np.uint16:
    return np.uint16(_high(a, np.uint16(ONE - weight)) + _high(b, weight))


@jit
def _blend_rows(
    image: NDArray[np.uint8],
    labels: Labels,
    unlike: Labels,
    table: U16,
    rows: Rows,
    columns: Columns,
    changed: Changed,
) -> None:
    above, below, down = rows
    width = columns[1].size
    # Of a row of the image; `keep` is stored for each channel, which allows one loop over all bytes.
    ink, keep = np.empty(3 * width, np.uint16), np.empty(3 * width, np.uint16)
    # Pixels that differ between the rows of labels above and below; their ink and keep there and in between.
    pixels, count = np.empty(width, np.uint32), 0
    first, last = np.empty((4, width), np.uint16), np.empty((4, width), np.uint16)
    mixed = np.empty((4, width), np.uint16)
    stored = unlike  # the row of labels in `ink` and `keep`
    for y in range(image.shape[0]):
        if y == 0 or above[y] != above[y - 1]:
            _store(ink, keep, pixels, last, count)
            upper, lower = labels[above[y]], labels[below[y]]
            if y == 0 or above[y] != below[y - 1]:
                count = _list_changes(stored, upper, table, columns, changed, pixels, last)
                _store(ink, keep, pixels, last, count)
            count = _list_changes(upper, lower, table, columns, changed, pixels, last)
            for k in range(count):
                i = 3 * pixels[k]
                first[0, k], first[1, k], first[2, k], first[3, k] = ink[i], ink[i + 1], ink[i + 2], keep[i]
            stored = lower
        for channel in range(4):
            a, b, result = first[channel], last[channel], mixed[channel]
            for k in range(count):
                result[k] = _interpolate(a[k], b[k], down[y])
        _store(ink, keep, pixels, mixed, count)
        _blend_row(image[y], ink, keep)


@jit
def _list_changes(
    before: Labels, now: Labels, table: U16, columns: Columns, changed: Changed, pixels: U32, values: U16
) -> int:
    """List the pixels of cells that differ between two rows of labels, with ink and keep of `now`. Return the number.

    `changed` is a buffer: a byte for each cell, and the same memory as words of 8 bytes, to skip equal cells by 8.
    """
    cells, across = columns
    (differs, words), last, count = changed, now.size - 1, 0
    for j in range(last):
        differs[j] = (before[j] ^ now[j]) | (before[j + 1] ^ now[j + 1])
    differs[last] = before[last] ^ now[last]
    for word in range(words.size):
        if not words[word]:
            continue
        for j in range(8 * word, min(8 * word + 8, now.size)):
            if differs[j]:
                a, b = now[j], now[min(j + 1, last)]
                blue, green, red, rest = table[a, 0], table[a, 1], table[a, 2], table[a, 3]
                next_blue, next_green, next_red, next_rest = table[b, 0], table[b, 1], table[b, 2], table[b, 3]
                for x in range(cells[j], cells[j + 1]):
                    pixels[count] = x
                    values[0, count] = _interpolate(blue, next_blue, across[x])
                    values[1, count] = _interpolate(green, next_green, across[x])
                    values[2, count] = _interpolate(red, next_red, across[x])
                    values[3, count] = _interpolate(rest, next_rest, across[x])
                    count += 1
    return count


@jit
def _store(ink: U16, keep: U16, pixels: U32, values: U16, count: int) -> None:
    """Store the values of the first `count` listed pixels."""
    blue, green, red, rest = values[0], values[1], values[2], values[3]
    for k in range(count):
        i = 3 * pixels[k]
        ink[i], ink[i + 1], ink[i + 2] = blue[k], green[k], red[k]
        keep[i], keep[i + 1], keep[i + 2] = rest[k], rest[k], rest[k]


@jit
def _blend_row(row: NDArray[np.uint8], ink: U16, keep: U16) -> None:
    for i in range(row.size):
        remaining = _high(np.uint16(row[i] << 8), keep[i])
        row[i] = np.uint16(remaining + ink[i] + np.uint16(128)) >> np.uint16(8)
