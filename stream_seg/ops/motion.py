"""Where every pixel came from, how far that can be believed, and whether two pictures belong together at all.

Motion is backward, as `Truth.motion`: float32 (h, w, 2), what to add to the (x, y) of a pixel of the picture `now` to
stand where its point stood in the picture `before`, in pixels of the array itself. All works on luminance at a low
resolution (`SIZE`, about that of the road network's scores). What was tried and what it brought is in docs/temporal.md.
"""

from __future__ import annotations

from functools import lru_cache
from threading import get_ident
from typing import TypeAlias, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.types import Image, Scores

Luma: TypeAlias = NDArray[np.uint8]
"""uint8 (h, w), luminance."""
Motion: TypeAlias = NDArray[np.float32]
"""float32 (h, w, 2), backward, see above."""
Confidence: TypeAlias = NDArray[np.float32]
"""float32 (h, w), 0 (nothing is known of this pixel's past) to 1."""
Array = TypeVar("Array", NDArray[np.uint8], NDArray[np.float32])

SIZE = (176, 240)
TOLERANCE = 10.0
"""Grey levels between the warped picture and the new one at which confidence has fallen to 1/e."""
JUMP = 5.0
"""Grey levels by which the mean luminance of two pictures differs where the exposure has jumped: on CamVid val it
differs by 2 at most."""
CUT = 0.33
"""Mean confidence below which two pictures have nothing to do with each other: consecutive ones of CamVid val (15/s)
have 0.65 and more, every third 0.45, unrelated ones 0.31 at most, for a flow finds something alike everywhere."""


def luma(image: Image, size: tuple[int, int] = SIZE) -> Luma:
    """The luminance of a picture (H, W, 3) of any size at `size` = (h, w)."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    while grey.shape[0] >= 2 * size[0] and grey.shape[1] >= 2 * size[1]:
        grey = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if grey.shape != size:
        grey = cv2.resize(grey, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(grey, np.uint8)


def flow(before: Luma, now: Luma) -> Motion:
    """Dense inverse search (Kroeger et al., ECCV 2016): OpenCV's preset ultrafast, refined one scale further. A jump of
    the exposure is taken out first, which the search takes for motion."""
    means = [float(cv2.mean(picture)[0]) for picture in (before, now)]
    if abs(means[0] - means[1]) > JUMP:
        before = _relit(before, now)
    return np.asarray(_search(get_ident()).calc(now, before, None), np.float32)  # type: ignore[call-overload]  # None: from nothing


@lru_cache(maxsize=16)
def _search(_thread: int) -> cv2.DISOpticalFlow:
    """One for each thread, kept: its buffers cost a fifth of a flow to make, and it works for one caller at a time."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    search.setFinestScale(1)
    return search


def resized(motion: Motion, size: tuple[int, int]) -> Motion:
    """The motion of a picture of `size` = (h, w): enlarged or reduced, and so are its vectors."""
    height, width = motion.shape[:2]
    if (height, width) == size:
        return motion
    scale = np.array([size[1] / width, size[0] / height], np.float32)
    return np.asarray(cv2.resize(motion, size[::-1], interpolation=cv2.INTER_LINEAR) * scale, np.float32)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> Motion:
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2).astype(np.float32)


def places(motion: Motion) -> Motion:
    """Where each pixel stood, (x, y), instead of how far away."""
    return np.asarray(cv2.add(_grid(*motion.shape[:2]), motion), np.float32)


def warped(array: Array, motion: Motion, *, nearest: bool = False) -> Array:
    """`array` (h, w) of the picture before, seen from the picture now, of the motion's size; uint8 or float32.

    Bilinear between pixels; labels want `nearest`. Outside the picture its border goes on.
    """
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    seen = cv2.remap(array, places(motion), None, how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return cast(Array, seen)


def warped_scores(scores: Scores, motion: Motion) -> Scores:
    """`warped` for every plane of scores (C, h, w)."""
    return np.stack([warped(plane, motion) for plane in scores])


def confidence(before: Luma, now: Luma, motion: Motion) -> Confidence:
    """How far each pixel's motion can be believed: 1 where the warped picture is the new one, 0 where it came from
    outside. A common change of brightness (exposure) is taken out first. What is next to a doubtful pixel is doubtful:
    motion is blurred over the outlines of things."""
    where, (height, width) = places(motion), now.shape
    seen = cv2.remap(before, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    # bytes, where a table does for the exponential: a fifth of the time of float32, and at most half a grey level off
    residual = cv2.blur(cv2.absdiff(_relit(seen, now), now), (3, 3))
    residual = cv2.dilate(residual, np.ones((3, 3), np.uint8))  # the worst neighbour
    inside = cv2.inRange(where, (-0.5, -0.5), (width - 0.5, height - 0.5))
    return np.asarray(cv2.copyTo(cv2.LUT(residual, _believed()), inside), np.float32)


def _relit(before: Luma, now: Luma) -> Luma:
    """`before` in the light of `now`: with its mean and deviation."""
    (mean, deviation), (mean_now, deviation_now) = (cv2.meanStdDev(each) for each in (before, now))
    gain = float(deviation_now[0, 0] / max(deviation[0, 0], 1e-3))
    offset = float(mean_now[0, 0]) - gain * float(mean[0, 0])
    levels = np.asarray(np.clip(np.rint(np.arange(256) * gain + offset), 0, 255), np.uint8)
    return np.asarray(cv2.LUT(before, levels), np.uint8)


@lru_cache(maxsize=1)
def _believed() -> NDArray[np.float32]:
    """The confidence at every residual."""
    return np.exp(-((np.arange(256) / TOLERANCE) ** 2)).astype(np.float32)


def is_cut(believed: Confidence) -> bool:
    """Whether two pictures belong to different shots, from the confidence in the motion between them."""
    return float(cv2.mean(believed)[0]) < CUT
