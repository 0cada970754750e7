"""Convert HDR images to SDR: reference white (203 cd/m2) becomes almost white, highlights above it are compressed.

Codes are decoded to light by a table, the colours are converted to BT.709, and a second table encodes them for an SDR
display:

    PQ (SMPTE ST 2084)    light = the absolute luminance in cd/m2
    HLG (ARIB STD-B67)    light = 1000 cd/m2 * (inverse OETF)^1.2, the system gamma applied to each channel
    display               value = 255 * curve(light / 203)^(1/2.4), the gamma of BT.1886

The curve is the identity up to KNEE, then a shoulder that begins with the same slope and reaches 1 at PEAK. Reference
white becomes 249, an 18 % grey card (26 cd/m2 by ITU-R BT.2408) 108, as SDR recordings show it.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.jit import jit
from stream_seg.types import Image

Transfer: TypeAlias = Literal["PQ", "HLG"]
Codes: TypeAlias = NDArray[np.uint16]

WHITE, PEAK = 203.0, 1000.0
"""cd/m2: reference white (ITU-R BT.2408), and the luminance that becomes 255."""
KNEE = 0.9
"""Light, 1 being reference white, above which it is compressed."""
CODES, LEVELS = 1024, 65536
BT2020_TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
"""Linear R, G, B (ITU-R BT.2087)."""
BT709 = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def tone_map(green: Codes, blue: Codes, red: Codes, transfer: Transfer, *, wide: bool = True) -> Image:
    """Return the SDR image, BGR uint8 (H, W, 3), of an HDR image.

    green, blue, red: uint16 (H, W), 10-bit codes of full range. wide: the primaries are those of BT.2020, else BT.709.
    """
    image = np.empty((*green.shape, 3), np.uint8)
    matrix = np.array(BT2020_TO_BT709 if wide else BT709, np.float32)
    _map(green, blue, red, _light_table(transfer), matrix, _display_table(), image)
    return image


@cache
def _light_table(transfer: Transfer) -> NDArray[np.float32]:
    """Return the light of each 10-bit code in steps of the display table."""
    code = np.linspace(0, 1, CODES)
    if transfer == "PQ":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = code ** (1 / m2)
        light = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = 1000 * np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12) ** 1.2
    return (light * ((LEVELS - 1) / PEAK)).astype(np.float32)


@cache
def _display_table() -> NDArray[np.uint8]:
    """Return the 8-bit value of light from 0 to PEAK in LEVELS steps."""
    peak = PEAK / WHITE
    light = np.linspace(0, peak, LEVELS)
    over, headroom = np.maximum(light - KNEE, 0), 1 - KNEE
    curve = np.minimum(light, KNEE) + over / (1 + over / headroom * (1 - headroom / (peak - KNEE)))
    return np.rint(255 * curve ** (1 / 2.4)).astype(np.uint8)


@jit
def _map(
    green: Codes,
    blue: Codes,
    red: Codes,
    lights: NDArray[np.float32],
    matrix: NDArray[np.float32],
    display: NDArray[np.uint8],
    image: Image,
) -> None:
    height, width = green.shape
    r, g, b = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    levels = np.empty(width, np.uint16)
    last, lowest, highest = np.uint16(CODES - 1), np.float32(0), np.float32(LEVELS - 1)
    for y in range(height):
        for x in range(width):  # unsigned indices need no check for negative ones
            r[x], g[x], b[x] = lights[red[y, x] & last], lights[green[y, x] & last], lights[blue[y, x] & last]
        for channel in range(3):
            from_r, from_g, from_b = matrix[2 - channel, 0], matrix[2 - channel, 1], matrix[2 - channel, 2]
            for x in range(width):  # without a table or a division, so that the compiler vectorizes it
                light = from_r * r[x] + from_g * g[x] + from_b * b[x]
                levels[x] = np.uint16(np.int32(min(max(light, lowest), highest)))
            for x in range(width):
                image[y, x, channel] = display[levels[x]]
