"""Pictures at a network's size."""

from __future__ import annotations

import cv2
import numpy as np

from stream_seg.types import Image


def reduced(image: Image, size: tuple[int, int]) -> Image:
    """The picture at `size` = (height, width), whatever its proportions.

    Halved by area while it is twice too large, then bilinear: thin poles stay as in INTER_AREA, at a sixth of its time
    (1080p to 352x480: 0.6 ms, INTER_AREA 3.7, plain bilinear 0.25 but it skips half of the pixels).
    """
    height, width = size
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
