"""Drawn drives with scores as a noisy network would give them, and what smoothing makes of those."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.datasets.palettes import CAMVID
from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.ops.motion import SIZE, Confidence, Luma, Motion, confidence, flow, luma
from stream_seg.stages.smooth import Smooth, mixed
from stream_seg.stages.synthetic import Synthetic
from stream_seg.types import Labels, Scores

ENGINE = EngineInfo("noisy", "numpy", "f32", "cpu")


@cache
def drive(frames: int, *, unsure: float = 2.0, first: int = 0, **keys: Any) -> tuple[Frame, ...]:
    """Frames from number `first` to `frames` with exact truth and noisy scores; 480x360, as CamVid."""
    drawn = Synthetic(width=480, height=360, frames=frames, truth=True, **keys)(iter(()))
    return tuple(noisy(frame, unsure) for frame in drawn if frame.seq >= first)


def noisy(frame: Frame, unsure: float) -> Frame:
    """The frame as from a network that is unsure in blotches, others in every frame: `unsure` is their deviation, in
    scores that are 5 for the true class."""
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


def smoothed(frames: tuple[Frame, ...], **keys: Any) -> list[Frame]:
    """The frames after the stage."""
    return list(Smooth(**keys)(iter(frames)))


def believed_fully(before: Luma, now: Luma, motion: Motion) -> Confidence:
    """In the place of `confidence`: one everywhere."""
    return np.ones(now.shape, np.float32)


def still(before: Luma, now: Luma) -> Motion:
    """In the place of `flow`: nothing moves."""
    return np.zeros((*now.shape, 2), np.float32)


def filtered(
    frames: tuple[Frame, ...],
    *,
    weight: float = Smooth().weight,
    motion_of: Callable[[Luma, Luma], Motion] = flow,
    believed_of: Callable[[Luma, Luma, Motion], Confidence] = confidence,
) -> list[Labels]:
    """The labels by the same steps as the stage's, any of which may be another."""
    past: tuple[Luma, Scores] | None = None
    found = []
    for frame in frames:
        assert frame.semantic is not None
        assert frame.semantic.scores is not None
        grey, scores = luma(frame.image), frame.semantic.scores
        if past is not None:
            motion = motion_of(past[0], grey)
            scores = mixed(past[1], scores, motion, believed_of(past[0], grey, motion), weight=weight)
        past = grey, scores
        found.append(Semantic(CAMVID, ENGINE, (360, 480), scores).labels)
    return found


def error_at_moving_edges(frames: tuple[Frame, ...], labels: list[Labels]) -> float:
    """The share of wrong pixels among those within 5 px of the outline of what moves."""
    wrong = near = 0
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
    for frame, said in zip(frames[1:], labels[1:], strict=True):
        truth = frame.truth
        assert truth is not None
        assert truth.motion is not None
        moves = np.uint8(np.linalg.norm(truth.motion, axis=2) > 1)
        edge = cv2.dilate(moves, kernel) > cv2.erode(moves, kernel)
        wrong, near = wrong + int((said != truth.labels)[edge].sum()), near + int(edge.sum())
    return wrong / near


def flips(frames: tuple[Frame, ...], labels: list[Labels]) -> float:
    """The share of points that change their class from one frame to the next, of those whose true class stays."""
    changed = followed = 0
    for k in range(1, len(frames)):
        before, truth = frames[k - 1].truth, frames[k].truth
        assert before is not None
        assert truth is not None
        assert truth.motion is not None
        moved = [_moved(each, truth.motion) for each in (before.labels, labels[k - 1])]
        same = moved[0] == truth.labels
        changed, followed = changed + int((moved[1] != labels[k])[same].sum()), followed + int(same.sum())
    return changed / followed


def _moved(labels: Labels, motion: NDArray[np.float32]) -> Labels:
    height, width = labels.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    out = cv2.remap(labels, x + motion[..., 0], y + motion[..., 1], cv2.INTER_NEAREST, borderValue=255)
    return np.asarray(out, np.uint8)
