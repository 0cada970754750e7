"""Checks of the output of an engine: its proportions, and scores that are infinite or not a number."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.types import VOID


def covers_image(output: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Return True if an output of (h, w) has the proportions of an input of `size`, to within two pixels of a side.

    Otherwise it shows a part of the image, such as that of a network without padding, or its axes are others.
    """
    (height, width), (input_height, input_width) = output, size
    return abs(height * input_width - width * input_height) <= 2 * max(size)


def is_finite(scores: NDArray[np.float32]) -> bool:
    """Return True if no score is infinite or NaN. OpenCV sums up in double precision, three times as fast as numpy."""
    return bool(np.isfinite(cv2.sumElems(scores.reshape(-1, scores.shape[-1]))[0]))


def limit_scores(scores: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Return scores (N, C, h, w) with infinite ones limited to just beyond the finite ones, and the mask of NaN.

    The mask, uint8 (N, h, w), is 255 for pixels with a NaN, whose scores become 0; None if there are none.
    """
    finite = scores[np.isfinite(scores)]
    limits = (finite.min() - 1, finite.max() + 1) if finite.size else (-1, 1)
    is_nan = np.asarray(np.isnan(scores).any(axis=1))
    limited = np.where(is_nan[:, None], np.float32(0), np.clip(scores, *limits))
    return limited, np.where(is_nan, np.uint8(VOID), np.uint8(0)) if is_nan.any() else None
