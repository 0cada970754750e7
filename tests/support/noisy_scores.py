"""Synthetic drives with the scores of a simulated noisy network, and measures of smoothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.datasets.palettes import CAMVID
from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.ops.motion import (
    SIZE,
    Confidence,
    Luma,
    Motion,
    compute_luma,
    estimate_confidence,
    estimate_flow,
    warp,
)
from stream_seg.stages.smooth import Smooth, blend
from stream_seg.stages.synthetic import Synthetic
from stream_seg.types import Labels, Scores

ENGINE = EngineInfo("noisy", "numpy", "f32", "cpu")


@cache
def noisy_drive(frames: int, *, unsure: float = 2.0, first: int = 0, **keys: Any) -> tuple[Frame, ...]:
    """Return the frames from number `first` to `frames` with ground truth and noisy scores; 480x360, as CamVid."""
    drive = Synthetic(width=480, height=360, frames=frames, truth=True, **keys)(iter(()))
    return tuple(add_noisy_scores(frame, unsure) for frame in drive if frame.seq >= first)


def add_noisy_scores(frame: Frame, unsure: float) -> Frame:
    """Return the frame with scores of 5 for the true class plus blotches of noise, different in every frame.

    `unsure` is the standard deviation of the noise.
    """
    assert frame.truth is not None
    random = np.random.default_rng((7, frame.seq))
    planes = [
        cv2.resize(np.float32(frame.truth.labels == c), SIZE[::-1], interpolation=cv2.INTER_AREA) for c in range(11)
    ]
    blotches = random.normal(0, unsure, (11, SIZE[0] // 4, SIZE[1] // 4)).astype(np.float32)
    scores = np.stack([5 * p + cv2.resize(b, SIZE[::-1]) for p, b in zip(planes, blotches, strict=True)])
    return Frame(
        frame.stream,
        frame.seq,
        frame.pts,
        frame.time_base,
        frame.captured_ns,
        frame.image,
        semantic=Semantic(CAMVID, ENGINE, (360, 480), scores),
        truth=frame.truth,
        missed=frame.missed,
    )


def smooth(frames: tuple[Frame, ...], **keys: Any) -> list[Frame]:
    """Return the frames after the stage `smooth`."""
    return list(Smooth(**keys)(iter(frames)))


def full_confidence(before: Luma, now: Luma, motion: Motion) -> Confidence:
    """Return confidence 1 everywhere; replaces `estimate_confidence`."""
    return np.ones(now.shape, np.float32)


def no_motion(before: Luma, now: Luma) -> Motion:
    """Return motion 0 everywhere; replaces `estimate_flow`."""
    return np.zeros((*now.shape, 2), np.float32)


def filter_labels(
    frames: tuple[Frame, ...],
    *,
    weight: float = Smooth().weight,
    flow: Callable[[Luma, Luma], Motion] = estimate_flow,
    confidence: Callable[[Luma, Luma, Motion], Confidence] = estimate_confidence,
) -> list[Labels]:
    """Return the labels after the steps of the stage, each of which can be replaced."""
    past: tuple[Luma, Scores] | None = None
    labels = []
    for frame in frames:
        assert frame.semantic is not None
        assert frame.semantic.scores is not None
        grey, scores = compute_luma(frame.image), frame.semantic.scores
        if past is not None:
            motion = flow(past[0], grey)
            scores = blend(past[1], scores, motion, confidence(past[0], grey, motion), weight=weight)
        past = grey, scores
        labels.append(Semantic(CAMVID, ENGINE, (360, 480), scores).labels)
    return labels


def moving_edge_error(frames: tuple[Frame, ...], labels: list[Labels]) -> float:
    """Return the share of wrong pixels within 5 px of the outline of moving objects."""
    wrong = near = 0
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
    for frame, result in zip(frames[1:], labels[1:], strict=True):
        truth = frame.truth
        assert truth is not None
        assert truth.motion is not None
        moves = np.uint8(np.linalg.norm(truth.motion, axis=2) > 1)
        edge = cv2.dilate(moves, kernel) > cv2.erode(moves, kernel)
        wrong, near = wrong + int((result != truth.labels)[edge].sum()), near + int(edge.sum())
    return wrong / near


def warp_scores(scores: Scores, motion: Motion) -> Scores:
    """Warp every plane of scores (C, h, w)."""
    return np.stack([warp(plane, motion) for plane in scores])


def flip_rate(frames: tuple[Frame, ...], labels: list[Labels]) -> float:
    """Return the share of points that change class between frames, among points whose true class stays."""
    changed = followed = 0
    for k in range(1, len(frames)):
        before, truth = frames[k - 1].truth, frames[k].truth
        assert before is not None
        assert truth is not None
        assert truth.motion is not None
        true, previous = (_warp(each, truth.motion) for each in (before.labels, labels[k - 1]))
        same = true == truth.labels
        changed, followed = changed + int((previous != labels[k])[same].sum()), followed + int(same.sum())
    return changed / followed


def _warp(labels: Labels, motion: NDArray[np.float32]) -> Labels:
    height, width = labels.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    out = cv2.remap(labels, x + motion[..., 0], y + motion[..., 1], cv2.INTER_NEAREST, borderValue=255)
    return np.asarray(out, np.uint8)
