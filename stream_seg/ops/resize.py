"""Resize images to the input size of a network or of the optical flow."""

from __future__ import annotations

import cv2
import numpy as np

from stream_seg.types import Image


def resize_image(image: Image, size: tuple[int, int]) -> Image:
    """Return an image (H, W, 3) or (H, W) at `size` = (height, width), ignoring its aspect ratio; itself at that size.

    It is halved by area while it is at least twice too large, then resized bilinearly. Thin poles survive as with
    INTER_AREA in a sixth of the time (1080p to 352x480: 0.6 ms, INTER_AREA 3.7 ms; plain bilinear takes 0.25 ms but
    skips half of the pixels).
    """
    height, width = size
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
