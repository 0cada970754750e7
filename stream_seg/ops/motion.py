"""Optical flow between two images, its confidence, points that it cannot follow, and the detection of cuts.

Motion points backward, as in `Truth.motion`: float32 (h, w, 2), to be added to the (x, y) of a pixel of the image `now`
to get the position of its point in the image `before`, in pixels of the array itself. All functions work on luminance
at a low resolution (`SIZE`, about that of the road network's scores). docs/temporal.md lists the alternatives tried.
"""

from __future__ import annotations

from functools import lru_cache
from threading import get_ident
from typing import TypeAlias, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.ops.resize import resize_image
from stream_seg.types import Image, Mask

Luma: TypeAlias = NDArray[np.uint8]
"""uint8 (h, w), luminance."""
Motion: TypeAlias = NDArray[np.float32]
"""float32 (h, w, 2), backward, see above."""
Confidence: TypeAlias = NDArray[np.float32]
"""float32 (h, w), from 0 (the past of the pixel is unknown) to 1."""
Array = TypeVar("Array", NDArray[np.uint8], NDArray[np.float32])

SIZE = (176, 240)
TOLERANCE = 10.0
"""Grey levels between the warped image and the new one at which confidence falls to 1/e."""
CONFIDENCE = np.exp(-((np.arange(256) / TOLERANCE) ** 2)).astype(np.float32)
"""Confidence by residual, grey levels: with uint8 a table replaces the exponential, in a fifth of the time of float32
and at most half a grey level off."""
JUMP = 5.0
"""Difference of the mean luminance of two images, grey levels, above which the exposure has jumped: between consecutive
images of CamVid val it is 2 at most."""
CUT = 0.33
"""Mean confidence below which two images are unrelated. On CamVid val (15 images/s) consecutive images have at least
0.65, every third image 0.45, unrelated images at most 0.31: the flow finds something similar everywhere."""
MISMATCH = 12
"""Grey levels between a pixel and the range of the 3x3 pixels around its point, from which it shows something else. Key
frames every fifth frame, with the true labels as the network's: without void up to 1.5 % of the image is wrong where a
van enters, with 12 up to 0.3 %, and on CamVid val it costs 0.4 mIoU; with 8 up to 0.25 %, for 0.8 mIoU."""
OUTSIDE_PX = 2.0
"""Distance from an image, in pixels, up to which its border stands for the scene outside it."""


def compute_luma(image: Image, size: tuple[int, int] = SIZE) -> Luma:
    """Return the luminance of an image (H, W, 3) of any size at `size` = (h, w)."""
    return resize_image(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8), size)


def estimate_flow(before: Luma, now: Luma) -> Motion:
    """Return the motion by dense inverse search (Kroeger et al., ECCV 2016): preset ultrafast, one scale finer.

    A jump of the exposure is compensated first; the search would take it for motion.
    """
    means = [float(cv2.mean(luma)[0]) for luma in (before, now)]
    if abs(means[0] - means[1]) > JUMP:
        before = _match_brightness(before, now)
    return np.asarray(_flow_search(get_ident()).calc(now, before, None), np.float32)  # type: ignore[call-overload]


@lru_cache(maxsize=16)
def _flow_search(_thread: int) -> cv2.DISOpticalFlow:
    """Return a search object for each thread. Allocating its buffers takes a fifth of the time of a flow."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    search.setFinestScale(1)
    return search


def resize_motion(motion: Motion, size: tuple[int, int]) -> Motion:
    """Return the motion at `size` = (h, w), its vectors scaled accordingly."""
    if motion.shape[:2] == size:
        return motion
    scale = np.diag([size[1] / motion.shape[1], size[0] / motion.shape[0]])
    resized = cv2.resize(motion, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.transform(resized, scale), np.float32)  # a third of the time of numpy's product


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Motion:
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2).astype(np.float32)


def absolute_positions(motion: Motion) -> Motion:
    """Return the position (x, y) of each pixel's point in the earlier image, instead of its displacement."""
    return np.asarray(cv2.add(_grid(*motion.shape[:2]), motion), np.float32)


def warp(array: Array, motion: Motion, *, nearest: bool = False) -> Array:
    """Warp an array (h, w), uint8 or float32, of the earlier image to the current one; `motion` has the same size.

    Interpolation is bilinear; use `nearest` for labels. Pixels from outside the image take the value at its border.
    """
    interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    result = cv2.remap(array, absolute_positions(motion), None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return cast(Array, result)


def estimate_confidence(before: Luma, now: Luma, motion: Motion) -> Confidence:
    """Return the confidence of each pixel's motion: 1 where the warped image equals the new one, 0 from outside.

    A common change of brightness (exposure) is compensated first. The neighbors of a doubtful pixel are doubtful,
    because motion is blurred across the outlines of objects.
    """
    height, width = now.shape
    residual = cv2.blur(cv2.absdiff(_match_brightness(warp(before, motion), now), now), (3, 3))
    residual = cv2.dilate(residual, np.ones((3, 3), np.uint8))  # the worst neighbor
    inside = cv2.inRange(absolute_positions(motion), (-0.5, -0.5), (width - 0.5, height - 0.5))
    return np.asarray(cv2.copyTo(cv2.LUT(residual, CONFIDENCE), inside), np.float32)


def find_mismatch(before: Luma, now: Luma, motion: Motion) -> Mask:
    """Return a mask of the pixels that show something else than their points in the image before, such as a new object.

    A pixel has to differ from the whole range of the 3x3 pixels around its point, or the point from the range around
    the pixel: a motion that is off by a pixel in texture is no mismatch (as in the neighborhood clamping of temporal
    anti-aliasing, Karis, SIGGRAPH 2014). Specks smaller than 5x5 pixels are removed.
    """
    warped = _match_exposure(warp(before, motion), now)
    residual = cv2.medianBlur(cv2.max(_exceed_range(now, warped), _exceed_range(warped, now)), 3)
    mask = cv2.threshold(cv2.dilate(residual, _square(3)), MISMATCH, 255, cv2.THRESH_BINARY)[1]
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, _square(5)), np.uint8)


def _exceed_range(luma: Luma, other: Luma) -> Luma:
    """Return the grey levels by which each pixel is outside the range of the 3x3 pixels around it in `other`."""
    above = cv2.subtract(luma, cv2.dilate(other, _square(3)))
    return np.asarray(cv2.max(above, cv2.subtract(cv2.erode(other, _square(3)), luma)), np.uint8)


def _match_exposure(before: Luma, now: Luma) -> Luma:
    """Return `before` in the brightness of `now` if the exposure has jumped; a large new object is no jump."""
    jump = np.median(now[::4, ::4].astype(np.int16) - before[::4, ::4])
    return _match_brightness(before, now) if abs(jump) > JUMP else before


@lru_cache(maxsize=4)
def _square(size: int) -> NDArray[np.uint8]:
    return np.ones((size, size), np.uint8)


def find_outside(motion: Motion) -> Mask:
    """Return a mask of the pixels whose points are outside the image before, by more than OUTSIDE_PX."""
    (height, width), margin = motion.shape[:2], OUTSIDE_PX
    inside = cv2.inRange(absolute_positions(motion), (-margin, -margin), (width - 1 + margin, height - 1 + margin))
    return np.asarray(cv2.bitwise_not(inside), np.uint8)


def _match_brightness(before: Luma, now: Luma) -> Luma:
    """Return `before` with the mean and standard deviation of `now`."""
    (mean, deviation), (mean_now, deviation_now) = (cv2.meanStdDev(luma) for luma in (before, now))
    gain = float(deviation_now[0, 0] / max(deviation[0, 0], 1e-3))
    offset = float(mean_now[0, 0]) - gain * float(mean[0, 0])
    levels = np.asarray(np.clip(np.rint(np.arange(256) * gain + offset), 0, 255), np.uint8)
    return np.asarray(cv2.LUT(before, levels), np.uint8)


def is_cut(confidence: Confidence) -> bool:
    """Return True where the confidence of the motion shows that the two images belong to different shots."""
    return float(cv2.mean(confidence)[0]) < CUT
