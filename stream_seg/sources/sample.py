"""Sparse samples of frames, by which a live source that repeats one image is noticed without converting any."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.types import Image

ROWS, VALUES = 8, 7
"""Every 8th row, and every 7th value of a row: pixels have 1 to 4 values, so that all channels are sampled."""
NOISE_LEVELS = 1
"""Levels of 8 bits by which equal images may differ: a decoder's rounding. The noise of any sensor is larger."""


class Sample(NamedTuple):
    """Sampled values of an image, in one dimension, and the difference up to which they count as equal."""

    values: NDArray[Any]
    tolerance: int

    def equals(self, other: Sample) -> bool:
        """Return True if two images differ by no more than a decoder's rounding."""
        if (self.values.shape, self.values.dtype) != (other.values.shape, other.values.dtype):
            return False
        return cv2.norm(self.values, other.values, cv2.NORM_INF) <= self.tolerance


class _Layout(NamedTuple):
    """Number type and bits of the values of a decoded frame, and the values per row of each plane."""

    dtype: np.dtype[Any]
    widths: tuple[int, ...]
    bits: int


def sample_image(image: Image) -> Sample:
    """Sample a converted image, uint8."""
    return Sample(image.reshape(image.shape[0], -1)[::ROWS, ::VALUES].flatten(), NOISE_LEVELS)


def sample_frame(frame: av.VideoFrame) -> Sample | None:
    """Sample the planes of a decoded frame as they are; None for a pixel format without values of 8 to 16 bits, and for
    a frame whose rows are stored from the bottom up: PyAV's buffer of a plane begins at its last row in memory.

    A frame of 1920x1080 takes 0.04 ms, its conversion to BGR 0.6 ms.
    """
    layout = _find_layout(frame.format.name, frame.width, frame.height)
    if layout is None or any(plane.line_size < 0 for plane in frame.planes):
        return None
    rows = (
        np.frombuffer(plane, layout.dtype).reshape(plane.height, -1)[::ROWS, :width:VALUES].ravel()  # type: ignore[call-overload]
        for plane, width in zip(frame.planes, layout.widths, strict=True)
    )
    return Sample(np.concatenate([*rows]), NOISE_LEVELS << (layout.bits - 8))


@lru_cache
def _find_layout(name: str, width: int, height: int) -> _Layout | None:
    video_format = av.VideoFormat(name, width, height)
    components = video_format.components
    bits = components[0].bits
    plain = 8 <= bits <= 16 and all(one.bits == bits for one in components)
    if not plain or video_format.has_palette or video_format.is_big_endian != (sys.byteorder == "big"):
        return None
    widths = [0] * (1 + max(one.plane for one in components))
    for one in components:
        widths[one.plane] += one.width
    return _Layout(np.dtype(np.uint8 if bits == 8 else np.uint16), tuple(widths), bits)
