"""Convert an image to planes of luma and chroma, BT.709 at limited range, as encoders take them.

    Y  = 16 + 219/255 (0.2126 R + 0.7152 G + 0.0722 B)                16 to 235
    Cb = 128 + 224/255 (B - luma) / 1.8556                            16 to 240, of the mean of 2x2 pixels
    Cr = 128 + 224/255 (R - luma) / 1.5748                            16 to 240, of the mean of 2x2 pixels

Two rows at a time are split into channels, which stay in the cache, so the image is read once. The arithmetic is 16-bit
fixed point with 8 bits after the point; the high half of a product is one instruction for 16 or 32 numbers at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import jit
from stream_seg.types import Image

Plane = NDArray[np.uint8]
Pairs = NDArray[np.uint16]
"""Values of a plane, two in each number: sums of neighbours need no shuffling."""

RED, BLUE = 0.2126, 0.0722
"""Weights of red and blue in the luma of BT.709; green has the rest."""
Y_RED, Y_BLUE, Y_GREEN = (round(65536 * 219 / 255 * weight) for weight in (RED, BLUE, 1 - RED - BLUE))
C_OWN = round(65536 * 224 / 255 / 2)
"""Weight of blue in Cb, and of red in Cr. The others are subtracted, and sum to it: grey has no chroma."""
CB_RED, CR_BLUE = (round(C_OWN * other / (1 - own)) for other, own in ((RED, BLUE), (BLUE, RED)))
CB_GREEN, CR_GREEN = C_OWN - CB_RED, C_OWN - CR_BLUE
Y_ZERO, C_ZERO = 16 * 256 + 129, 128 * 256 + 128
"""Black and grey in 8.8 fixed point, with the half for rounding, and for luma the mean loss of its three products."""


def convert_to_i420(image: Image, y: Plane, u: Plane, v: Plane) -> None:
    """Convert an image to 4:2:0, BT.709 at limited range, into the planes of a video frame.

    image: uint8 (H, W, 3), BGR; an odd last row or column is left out. y: uint8, C-contiguous, H // 2 * 2 rows of at
    least W // 2 * 2 columns; u, v: H // 2 rows of at least W // 2. Columns beyond these are not written. The result is
    within 0.51 levels of the exact value. Raises ValueError for other arrays.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
    height, width = image.shape[0] // 2, image.shape[1] // 2
    for name, plane, scale in (("y", y, 2), ("u", u, 1), ("v", v, 1)):
        fits = plane.ndim == 2 and plane.shape[0] == scale * height and plane.shape[1] >= scale * width
        if not fits or plane.dtype != np.uint8 or not plane.flags.c_contiguous:
            rows = f"C-contiguous uint8, {scale * height} rows of {scale * width} or more"
            raise ValueError(f"{name}: expected {rows}, got {plane.dtype} {plane.shape}")
    pixels = np.ascontiguousarray(image).reshape(len(image), -1).view()
    pixels.flags.writeable = False  # one type of argument, compiled once
    _convert(pixels, y, u, v, width)


@jit
def _high(a: np.uint16, b: np.uint16) -> np.uint16:
    return np.uint16((np.uint32(a) * np.uint32(b)) >> np.uint32(16))


@jit
def _convert(pixels: Plane, y: Plane, u: Plane, v: Plane, width: int) -> None:
    blue = np.empty((2, 2 * width), np.uint8)
    green, red = np.empty_like(blue), np.empty_like(blue)  # three arrays: in one, the loops are not vectorized
    for i in range(u.shape[0]):
        for k in range(2):
            _split_row(pixels[2 * i + k], blue[k], green[k], red[k])
            _convert_luma(blue[k], green[k], red[k], y[2 * i + k])
        _convert_chroma(blue.view(np.uint16), green.view(np.uint16), red.view(np.uint16), u[i], v[i])


@jit
def _split_row(row: Plane, blue: Plane, green: Plane, red: Plane) -> None:
    for x in range(blue.size):
        blue[x] = row[3 * x]
        green[x] = row[3 * x + 1]
        red[x] = row[3 * x + 2]


@jit
def _convert_luma(blue: Plane, green: Plane, red: Plane, y: Plane) -> None:
    for x in range(blue.size):
        b, g, r = np.uint16(blue[x] << 8), np.uint16(green[x] << 8), np.uint16(red[x] << 8)
        luma = _high(b, np.uint16(Y_BLUE)) + _high(g, np.uint16(Y_GREEN)) + _high(r, np.uint16(Y_RED))
        y[x] = np.uint16(luma + np.uint16(Y_ZERO)) >> np.uint16(8)


@jit
def _sum_square(above: np.uint16, below: np.uint16) -> np.uint16:
    """Return the mean of 2x2 values, two in each argument, in 8.8 fixed point."""
    upper = (above & np.uint16(255)) + (above >> np.uint16(8))
    lower = (below & np.uint16(255)) + (below >> np.uint16(8))
    return np.uint16(np.uint16(upper + lower) << 6)


@jit
def _convert_chroma(blue: Pairs, green: Pairs, red: Pairs, u: Plane, v: Plane) -> None:
    blue0, blue1, green0, green1, red0, red1 = blue[0], blue[1], green[0], green[1], red[0], red[1]
    for x in range(blue0.size):
        b, g, r = _sum_square(blue0[x], blue1[x]), _sum_square(green0[x], green1[x]), _sum_square(red0[x], red1[x])
        cb = _high(b, np.uint16(C_OWN)) - _high(g, np.uint16(CB_GREEN)) - _high(r, np.uint16(CB_RED))
        cr = _high(r, np.uint16(C_OWN)) - _high(g, np.uint16(CR_GREEN)) - _high(b, np.uint16(CR_BLUE))
        u[x] = np.uint16(cb + np.uint16(C_ZERO)) >> np.uint16(8)
        v[x] = np.uint16(cr + np.uint16(C_ZERO)) >> np.uint16(8)
