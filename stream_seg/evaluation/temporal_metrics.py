"""Metrics of the stability and sharpness of label maps over time. Labels are uint8 (H, W); 255 is void."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.motion import Motion, warp
from stream_seg.types import VOID, Image, Labels

STILL_PX = 0.5
SAME_GREY = 15.0
"""Largest difference in grey levels between two views of the same point."""
BOUNDARY_TOLERANCE = 0.0075
"""Share of the image diagonal, as in Csurka et al. (BMVC 2013)."""
Mask = NDArray[np.bool_]


def reference_flow(before: Image, now: Image) -> Motion:
    """Return Farneback's flow (SCIA 2003) at full size.

    The method differs from `ops.motion.estimate_flow`, so a filter is not measured by its own errors.
    """
    present, past = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (now, before))
    out = np.zeros((*now.shape[:2], 2), np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(present, past, out, 0.5, 5, 21, 3, 7, 1.5, 0), np.float32)


def visible_mask(before: Image, now: Image, motion: Motion) -> Mask:
    """Return a mask of the pixels whose point was visible in the previous image.

    These are inside that image and look alike in both (after Lai et al., ECCV 2018, with a threshold for their soft
    mask).
    """
    warped = [warp(np.ascontiguousarray(before[..., c]), motion) for c in range(3)]
    difference = np.asarray(cv2.absdiff(np.stack(warped, axis=2), now).mean(axis=2), np.float32)
    height, width = now.shape[:2]
    x, y = np.arange(width) + motion[..., 0], np.arange(height)[:, None] + motion[..., 1]
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    return np.asarray((cv2.blur(difference, (3, 3)) < SAME_GREY) & inside)


def still_mask(motion: Motion) -> Mask:
    """Return a mask of the pixels that move less than half a pixel."""
    return np.asarray((motion**2).sum(axis=2) < STILL_PX**2)


def video_consistency(truth: Sequence[Labels], predicted: Sequence[Labels], length: int) -> float | None:
    """Return VC of `length` frames (VSPW, Miao et al., CVPR 2021), None for fewer frames.

    Among the pixels whose true class stays over `length` frames, the share whose predicted class stays too; the mean
    over all runs of that length.
    """
    shares = []
    for first in range(len(truth) - length + 1):
        window, guess = truth[first : first + length], predicted[first : first + length]
        common = np.all([labels == window[0] for labels in window[1:]], axis=0) & (window[0] != VOID)
        steady = np.all([labels == guess[0] for labels in guess[1:]], axis=0)
        if common.any():
            shares.append(float(steady[common].mean()))
    return float(np.mean(shares)) if shares else None


def boundary_f(truth: Labels, predicted: Labels, *, classes: int) -> float | None:
    """Return the F score of class outlines (Csurka et al., BMVC 2013), the mean over the classes in the truth.

    A pixel of an outline is correct if the other outline of that class is within 0.75 % of the image diagonal. None if
    no class has an outline.
    """
    radius = max(1, round(BOUNDARY_TOLERANCE * float(np.hypot(*truth.shape))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    known = truth != VOID
    scores = []
    for c in range(classes):
        true, guess = (_outline(labels == c) & known for labels in (truth, predicted))
        if not true.any():
            continue
        hit = guess[cv2.dilate(true.astype(np.uint8), kernel) > 0].sum()
        met = true[cv2.dilate(guess.astype(np.uint8), kernel) > 0].sum()
        precision, recall = hit / max(guess.sum(), 1), met / true.sum()
        scores.append(2 * precision * recall / max(precision + recall, 1e-9))
    return float(np.mean(scores)) if scores else None


def _outline(mask: Mask) -> Mask:
    filled = mask.astype(np.uint8)
    return np.asarray(filled > cv2.erode(filled, np.ones((3, 3), np.uint8)))
