"""How steady and how sharp label maps are, from one picture to the next. Labels uint8 (H, W); 255 is void."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.motion import Motion, warped
from stream_seg.types import VOID, Image, Labels

STILL_PX = 0.5
SAME_GREY = 15.0
"""Grey levels by which a pixel may differ from where it came from and still be the same point."""
BOUNDARY_TOLERANCE = 0.0075
"""Of the picture's diagonal, as Csurka et al. (BMVC 2013)."""
Mask = NDArray[np.bool_]


def reference_flow(before: Image, now: Image) -> Motion:
    """Farneback's flow (SCIA 2003) at full size: another method than `ops.motion.flow`, so that a filter is not
    measured by its own errors."""
    present, past = (cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in (now, before))
    out = np.zeros((*now.shape[:2], 2), np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(present, past, out, 0.5, 5, 21, 3, 7, 1.5, 0), np.float32)


def visible(before: Image, now: Image, motion: Motion) -> Mask:
    """Where the point of a pixel was in sight in the picture before: the two look alike there (after Lai et al., ECCV
    2018, with a threshold for their soft mask), inside the picture."""
    came = [warped(np.ascontiguousarray(before[..., c]), motion) for c in range(3)]
    differs = np.asarray(cv2.absdiff(np.stack(came, axis=2), now).mean(axis=2), np.float32)
    height, width = now.shape[:2]
    x, y = np.arange(width) + motion[..., 0], np.arange(height)[:, None] + motion[..., 1]
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    return np.asarray((cv2.blur(differs, (3, 3)) < SAME_GREY) & inside)


def still(motion: Motion) -> Mask:
    """Pixels that move less than half a pixel."""
    return np.asarray((motion**2).sum(axis=2) < STILL_PX**2)


def video_consistency(truth: Sequence[Labels], said: Sequence[Labels], length: int) -> float | None:
    """VC of `length` frames (VSPW, Miao et al., CVPR 2021): of the pixels whose true class stays over so many frames,
    the share whose predicted class stays too; the mean over all such runs. None for fewer frames."""
    shares = []
    for first in range(len(truth) - length + 1):
        window, guess = truth[first : first + length], said[first : first + length]
        common = np.all([labels == window[0] for labels in window[1:]], axis=0) & (window[0] != VOID)
        steady = np.all([labels == guess[0] for labels in guess[1:]], axis=0)
        if common.any():
            shares.append(float(steady[common].mean()))
    return float(np.mean(shares)) if shares else None


def boundary_f(truth: Labels, said: Labels, *, classes: int) -> float | None:
    """F of the outlines of each class (Csurka et al., BMVC 2013), the mean over the classes in the true labels.

    A pixel of an outline is right if the other outline of that class is within 0.75 % of the picture's diagonal. None
    where no class has an outline.
    """
    radius = max(1, round(BOUNDARY_TOLERANCE * float(np.hypot(*truth.shape))))
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    known = truth != VOID
    found = []
    for c in range(classes):
        true, guess = (_outline(labels == c) & known for labels in (truth, said))
        if not true.any():
            continue
        hit = guess[cv2.dilate(true.astype(np.uint8), near) > 0].sum()
        met = true[cv2.dilate(guess.astype(np.uint8), near) > 0].sum()
        precision, recall = hit / max(guess.sum(), 1), met / true.sum()
        found.append(2 * precision * recall / max(precision + recall, 1e-9))
    return float(np.mean(found)) if found else None


def _outline(mask: Mask) -> Mask:
    filled = mask.astype(np.uint8)
    return np.asarray(filled > cv2.erode(filled, np.ones((3, 3), np.uint8)))
