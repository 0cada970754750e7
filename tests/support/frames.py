"""Numbered frames for tests: small, and told apart by their number."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np

from stream_seg.frame import Frame

RATE = 30


def frame(seq: int, *, stream: str = "camera", size: tuple[int, int] = (4, 6)) -> Frame:
    """Frame `seq` of a stream at 30 frames/s, its number in every pixel."""
    image = np.full((*size, 3), seq % 256, np.uint8)
    return Frame(stream, seq, seq, Fraction(1, RATE), time.monotonic_ns(), image)
