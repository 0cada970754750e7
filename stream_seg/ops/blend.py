"""Blend class colours into an image, in place and in one pass.

Labels have the network's size and the image is larger: enlarged by nearest neighbor they would show as blocks. So the
opacity-weighted colour (`ink`) and the remaining share of the image (`keep`) are interpolated between labels:

    labels (h, w) --table--> ink, keep --across--> two rows of the image's width --down--> image * keep + ink

The arithmetic is 16-bit fixed point; the high half of a product is one instruction for 16 or 32 numbers at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import jit
from stream_seg.ops.labels import bilinear_taps
from stream_seg.types import Image, Labels

U16 = NDArray[np.uint16]
Rows = tuple[NDArray[np.uintp], NDArray[np.uintp], U16]
Columns = tuple[NDArray[np.intp], U16]
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
    above, below, by_row = bilinear_taps(height, rows)
    left, _, by_column = bilinear_taps(width, columns)
    down, across = (
        np.rint((weight if soft else weight >= 0.5) * np.float32(ONE)).astype(np.uint16)
        for weight in (by_row, by_column)
    )
    cells = np.searchsorted(left, np.arange(columns + 1, dtype=np.uintp))  # cell j: outputs from column j to j + 1
    ink = np.rint(colours * (opacity[:, None] * 256.0)).astype(np.uint16)  # 8.8 bits
    table = np.column_stack([ink, np.rint((1.0 - opacity) * ONE).astype(np.uint16)])
    pixels = image.reshape(height, 3 * width)
    _blend_rows(pixels, np.ascontiguousarray(labels), table, (above, below, down), (cells, across))


@jit
def _high(a: np.uint16, b: np.uint16) -> np.uint16:
    return np.uint16((np.uint32(a) * np.uint32(b)) >> np.uint32(16))


@jit
def _interpolate(a: np.uint16, b: np.uint16, weight: np.uint16) -> np.uint16:
    return np.uint16(_high(a, np.uint16(ONE - weight)) + _high(b, weight))


@jit
def _blend_rows(image: NDArray[np.uint8], labels: Labels, table: U16, rows: Rows, columns: Columns) -> None:
    above, below, down = rows
    # Label row r, resized to the image's width, is in slot r & 1; `keep` is stored per channel, which allows one loop.
    ink = np.empty((2, image.shape[1]), np.uint16)
    keep = np.empty((2, image.shape[1]), np.uint16)
    label_rows = np.full(2, -1)
    for y in range(image.shape[0]):
        for r in (above[y], below[y]):
            if label_rows[r & 1] != r:
                before = labels[label_rows[r & 1]] if label_rows[r & 1] >= 0 else labels[0, :0]
                _resize_row(ink[r & 1], keep[r & 1], before, labels[r], table, columns)
                label_rows[r & 1] = r
        _blend_row(image[y], ink[above[y] & 1], ink[below[y] & 1], keep[above[y] & 1], keep[below[y] & 1], down[y])


@jit
def _resize_row(ink: U16, keep: U16, before: Labels, now: Labels, table: U16, columns: Columns) -> None:
    """Interpolate ink and keep of the label row `now`; cells equal to those of `before` are in place already."""
    cells, across = columns
    last = now.size - 1
    for j in range(now.size):
        k = min(j + 1, last)
        if before.size and before[j] == now[j] and before[k] == now[k]:
            continue
        a, b = table[now[j]], table[now[k]]
        for x in range(cells[j], cells[j + 1]):
            keep_x = _interpolate(a[3], b[3], across[x])
            for channel in range(3):
                ink[3 * x + channel] = _interpolate(a[channel], b[channel], across[x])
                keep[3 * x + channel] = keep_x


@jit
def _blend_row(row: NDArray[np.uint8], ink0: U16, ink1: U16, keep0: U16, keep1: U16, weight: np.uint16) -> None:
    for i in range(row.size):
        remaining = _high(np.uint16(row[i] << 8), _interpolate(keep0[i], keep1[i], weight))
        row[i] = np.uint16(remaining + _interpolate(ink0[i], ink1[i], weight) + np.uint16(128)) >> np.uint16(8)
