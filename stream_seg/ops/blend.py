"""Class colours over a picture, in one pass over the picture and in place.

Labels come at the network's size and the picture is larger: enlarged by nearest neighbour they show as blocks. So the
opacity-weighted colour (`ink`) and what is kept of the picture (`keep`) are interpolated bilinearly between labels:

    labels (h, w) --table--> ink, keep --across--> two rows of the picture's width --down--> picture * keep + ink

All in 16-bit fixed point with a product's high half, which is one instruction on 16 or 32 numbers at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import compiled
from stream_seg.ops.labels import taps
from stream_seg.types import Image, Labels

U16 = NDArray[np.uint16]
ONE = 65535
"""A weight of one."""


def blend(
    image: Image, labels: Labels, colours: NDArray[np.uint8], opacity: NDArray[np.floating], *, soft: bool = True
) -> None:
    """Draw the colours of `labels` over `image`, in place.

    image: uint8 (H, W, 3), C-contiguous. labels: uint8 (h, w) of any size. By label: colours uint8 (256, 3) in the
    picture's channel order, opacity (256,) in [0, 1], where 0 leaves pixels untouched and 1 replaces them.
    soft=False keeps the labels' own hard edges. Raises ValueError where it would have to draw on a copy.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: uint8 (H, W, 3) is needed, not {image.dtype} {image.shape}")
    if not (image.flags.writeable and image.flags.c_contiguous):
        raise ValueError("image: drawing in place needs a writeable, C-contiguous array; copy it first")
    if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels: uint8 (h, w) is needed, not {labels.dtype} {labels.shape}")
    (height, width), (rows, columns) = image.shape[:2], labels.shape
    above, below, down = taps(height, rows)
    left, _, across = taps(width, columns)
    cells = np.searchsorted(left, np.arange(columns + 1, dtype=np.uintp))  # cell j: outputs from column j to column j+1
    ink = np.rint(colours * (opacity[:, None] * 256.0)).astype(np.uint16)  # 8.8 bits
    keep = np.rint((1.0 - opacity) * ONE).astype(np.uint16)
    _blend_rows(
        image.reshape(height, 3 * width),
        np.ascontiguousarray(labels),
        np.column_stack([ink, keep]),
        above,
        below,
        _weights(down, soft),
        cells,
        _weights(across, soft),
    )


def _weights(weight: NDArray[np.float32], soft: bool) -> U16:
    return np.rint((weight if soft else weight >= 0.5) * np.float32(ONE)).astype(np.uint16)


@compiled
def _high(a: np.uint16, b: np.uint16) -> np.uint16:
    return np.uint16((np.uint32(a) * np.uint32(b)) >> np.uint32(16))


@compiled
def _mixed(a: np.uint16, b: np.uint16, weight: np.uint16) -> np.uint16:
    return np.uint16(_high(a, np.uint16(ONE - weight)) + _high(b, weight))


@compiled
def _blend_rows(
    picture: NDArray[np.uint8],
    labels: Labels,
    table: U16,
    above: NDArray[np.uintp],
    below: NDArray[np.uintp],
    down: U16,
    cells: NDArray[np.intp],
    across: U16,
) -> None:
    # Label row r stands widened in slot r & 1, once per channel of the picture so that mixing is one plain loop.
    ink = np.empty((2, picture.shape[1]), np.uint16)
    keep = np.empty((2, picture.shape[1]), np.uint16)
    held = np.full(2, -1)
    for y in range(picture.shape[0]):
        for r in (above[y], below[y]):
            if held[r & 1] != r:
                before = labels[held[r & 1]] if held[r & 1] >= 0 else labels[0, :0]
                _widen(ink[r & 1], keep[r & 1], before, labels[r], table, cells, across)
                held[r & 1] = r
        _mix_row(picture[y], ink[above[y] & 1], ink[below[y] & 1], keep[above[y] & 1], keep[below[y] & 1], down[y])


@compiled
def _widen(ink: U16, keep: U16, before: Labels, now: Labels, table: U16, cells: NDArray[np.intp], across: U16) -> None:
    """Interpolate one row of labels. Label rows resemble each other: what equals the row `before` is there already."""
    last = now.size - 1
    for j in range(now.size):
        k = min(j + 1, last)
        if before.size and before[j] == now[j] and before[k] == now[k]:
            continue
        a, b = table[now[j]], table[now[k]]
        for x in range(cells[j], cells[j + 1]):
            kept = _mixed(a[3], b[3], across[x])
            for channel in range(3):
                ink[3 * x + channel] = _mixed(a[channel], b[channel], across[x])
                keep[3 * x + channel] = kept


@compiled
def _mix_row(row: NDArray[np.uint8], ink0: U16, ink1: U16, keep0: U16, keep1: U16, weight: np.uint16) -> None:
    for i in range(row.size):
        kept = _high(np.uint16(row[i] << 8), _mixed(keep0[i], keep1[i], weight))
        row[i] = np.uint16(kept + _mixed(ink0[i], ink1[i], weight) + np.uint16(128)) >> np.uint16(8)
