"""Small numbered frames for tests."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np

from stream_seg.frame import Frame

RATE = 30


def make_frame(seq: int, *, stream: str = "camera", size: tuple[int, int] = (4, 6)) -> Frame:
    """Return frame `seq` of a stream at 30 frames/s, captured now, with its number in every pixel."""
    image = np.full((*size, 3), seq % 256, np.uint8)
    return Frame(stream, seq, seq, Fraction(1, RATE), time.monotonic_ns(), image)
