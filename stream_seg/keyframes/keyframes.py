"""Run the network on key frames only, and warp its scores to the frames between.

                    flow             flow             flow
frame  0 -------------> 1 -------------> 2 -------------> 3
       |                |                |                |
    network        scores of 0      scores of 0        network
       |         warped by 0->1  warped by 0->1->2        |
     scores          scores           scores            scores
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Frame, FrameMotion, Semantic, Temporal, WarpedScores
from stream_seg.ops import motion as ops
from stream_seg.ops.motion import Luma, Motion
from stream_seg.per_stream import PerStream
from stream_seg.sources.timeline import discontinuity
from stream_seg.types import Image, Mask

Every: TypeAlias = int | Literal["auto"]
Inference: TypeAlias = Callable[[Image], Callable[[], Semantic]]
"""Prepares an image at once, and returns the function that runs the network on it."""

MAX_DOUBT = 0.9
"""`auto`: doubt at which the next key frame is due. Doubt is the sum, over the frames since the key frame, of the share
of its scores that is no longer trusted. Not the share itself: if the loss grows evenly by s per frame, intervals of
sqrt(2 MAX_DOUBT / s) frames lose least, and on CamVid val the sum costs 0.1 to 0.4 mIoU less than the share at the same
number of key frames. There 0.9 makes every third frame a key frame."""
MAX_UNKNOWN = 0.05
"""Share of the image without a class from which a key frame is due early. On CamVid val, every fifth frame, the share
stays below; a van that enters nearby and a quick turn of the camera exceed it."""
HANG_S, HANG_FACTOR = 1.5, 10
"""A frame waits for a network in the background that takes longer, and that many times longer than ever before: if it
hangs, the stage hangs too, which the watchdog reports, instead of moving old labels along for ever."""
MAX_INTERVAL = 15
"""`auto`: frames after which a key frame is due even without motion: new objects may be too small to be noticed."""


@dataclass(frozen=True)
class View:
    """The luminance of a frame, from which motion is estimated, with the frame's number, time and shape."""

    seq: int
    time_s: Fraction
    shape: tuple[int, ...]
    luma: Luma

    @classmethod
    def of(cls, frame: Frame, luma: Luma | None = None) -> View:
        """Return the view of a frame; `luma` is its luminance, if computed before."""
        luma = ops.compute_luma(frame.image) if luma is None else luma
        return cls(frame.seq, frame.pts * frame.time_base, frame.image.shape, luma)

    def estimate_motion(self, luma: Luma) -> FrameMotion:
        """Return the motion from here to a frame of luminance `luma`."""
        flow = ops.estimate_flow(self.luma, luma)
        return FrameMotion(self.seq, flow, ops.estimate_confidence(self.luma, luma, flow), luma)

    def motion_to(self, now: View) -> FrameMotion | None:
        """Return the motion from here to `now`; None after a gap, at a cut, if time goes back or the shape changes."""
        if self.shape != now.shape or discontinuity(now.time_s - self.time_s) is not None:
            return None
        step = self.estimate_motion(now.luma)
        return None if ops.is_cut(step.confidence) else step


@dataclass(frozen=True)
class Propagation:
    """The path from a key frame to the current frame.

    `age`: frames since the key frame. `motion`: over all of them, None at the key frame. `unknown`: the pixels that the
    key frame did not show: their points are outside its image, or the image has changed there since. For `auto` only:
    `trust` in each pixel's scores, 0 to 1, which is the margin of the network there times the confidence of every
    motion; and the `doubt` accumulated so far.
    """

    age: int = 0
    motion: Motion | None = None
    unknown: Mask | None = None
    trust: NDArray[np.float32] | None = None
    doubt: float = 0.0

    @classmethod
    def start(cls, every: Every) -> Propagation:
        """Return the path of length 0."""
        return cls(trust=np.ones(ops.SIZE, np.float32) if every == "auto" else None)

    def with_margins(self, semantic: Semantic) -> Propagation:
        """Return the path with its trust multiplied by the margins of the key frame's scores, now that these exist."""
        if semantic.scores is None or self.trust is None:
            return self
        from stream_seg.ops.scores import compute_margins  # imports numba: too slow for a help text

        margins = cv2.resize(compute_margins(semantic.scores), ops.SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        warped = margins if self.motion is None else ops.warp(np.asarray(margins, np.float32), self.motion)
        return replace(self, trust=np.asarray(cv2.multiply(self.trust, warped), np.float32))

    def advance(self, step: FrameMotion, mismatch: Mask) -> Propagation:
        """Return the path to the next frame. `mismatch`: its pixels that the frame before did not show."""
        from stream_seg.ops.propagate import compose_motion  # imports numba: too slow for a help text

        motion = step.flow if self.motion is None else compose_motion(self.motion, step.flow)
        unknown = cv2.max(mismatch, ops.find_outside(motion))
        if self.unknown is not None:
            unknown = cv2.max(unknown, ops.warp(self.unknown, step.flow, nearest=True))
        path = Propagation(self.age + 1, motion, np.asarray(unknown, np.uint8))
        if self.trust is None:
            return path
        trust = np.asarray(cv2.multiply(ops.warp(self.trust, step.flow), step.confidence), np.float32)
        return replace(path, trust=trust, doubt=self.doubt + 1.0 - float(cv2.mean(trust)[0]))

    def is_due(self, every: Every, *, max_doubt: float) -> bool:
        """Return True if the current frame has to be a key frame.

        It has to be early if too much of the image is unknown, but not before half of a fixed interval: there are at
        most twice as many key frames as `every` says.
        """
        if self.unknown is not None and cv2.countNonZero(self.unknown) > MAX_UNKNOWN * self.unknown.size:
            return every == "auto" or 2 * self.age >= every
        if every == "auto":
            return self.age >= MAX_INTERVAL or self.doubt >= max_doubt or self.trust is None
        return self.age >= every


def propagate(semantic: Semantic, path: Propagation) -> Semantic:
    """Return the scores or labels of a key frame, warped along the path to the current frame; void where unknown."""
    if path.motion is None:
        return semantic
    unknown = path.unknown
    if semantic.unknown is not None and unknown is not None:  # pixels that the network gave no score in the key frame
        own = ops.warp(semantic.unknown, ops.resize_motion(path.motion, semantic.unknown.shape), nearest=True)
        resized = cv2.resize(unknown, own.shape[::-1], interpolation=cv2.INTER_NEAREST)
        unknown = np.asarray(cv2.max(own, resized), np.uint8)
    if semantic.reference is not None:
        scores = WarpedScores(semantic.reference, path.motion)
        return replace(semantic, scores=scores, unknown=unknown, scaled=None)
    assert semantic.label_map is not None
    motion = ops.resize_motion(path.motion, semantic.label_map.shape)
    label_map = ops.warp(semantic.label_map, motion, nearest=True)
    return replace(semantic, label_map=label_map, unknown=unknown, scaled=None)


@dataclass
class _Track:
    """State of one stream: the view of its last frame, the last key frame with a result, and the one in progress."""

    view: View
    semantic: Semantic
    propagation: Propagation
    pending: tuple[Future[Semantic], Propagation] | None = None
    since_s: float = 0.0
    """Time at which the key frame in progress was handed to the worker."""

    def advance(self, view: View, step: FrameMotion) -> None:
        """Move to the next frame; a key frame in progress that has its result by now replaces the last one."""
        mismatch = ops.find_mismatch(self.view.luma, view.luma, step.flow)
        self.view, self.propagation = view, self.propagation.advance(step, mismatch)
        if self.pending is not None:
            future, propagation = self.pending[0], self.pending[1].advance(step, mismatch)
            self.pending = future, propagation
            if future.done():
                self.semantic, self.pending = future.result(), None
                self.propagation = propagation.with_margins(self.semantic)


class KeyFrames:
    """Key frames of all streams of a stage.

    Without a worker a key frame waits for the network, and equal frames give equal results. With one the network runs
    in the background: frames use the previous key frame until it is done. Only a frame that nothing can be warped to
    (the first, after a cut or a gap) waits, and every frame if the network seems to hang (HANG_S).
    """

    def __init__(self, worker: Executor | None, *, max_doubt: float = MAX_DOUBT) -> None:
        self._worker, self._max_doubt = worker, max_doubt
        self._tracks: PerStream[_Track] = PerStream()
        self._longest_s = 0.0  # of the network, in the foreground

    def segment(self, frame: Frame, infer: Inference, *, every: Every) -> tuple[Frame, Temporal]:
        """Return a frame with scores or labels, and their relation to earlier frames. Raises what `infer` raises."""
        track, view, step = self._tracks.get(frame.stream), View.of(frame), None
        waits = self._worker is None or every == 1
        foreseen = waits and track is not None and every != "auto" and track.propagation.age + 1 >= every
        if track is not None and not foreseen:
            step = track.view.motion_to(view)
        if track is not None and step is not None:
            taken_s = time.monotonic() - track.since_s
            if track.pending is not None and taken_s > max(HANG_S, HANG_FACTOR * self._longest_s):
                wait((track.pending[0],))
            track.advance(view, step)
            due = track.propagation.is_due(every, max_doubt=self._max_doubt)
            if not (due and waits):
                self._tracks.put(frame.stream, track)
                key = due and track.pending is None
                if key and self._worker is not None:
                    track.pending = self._worker.submit(infer(frame.image)), Propagation.start(every)
                    track.since_s = time.monotonic()
                temporal = Temporal(key=key, age=track.propagation.age, motion=step)
                return replace(frame, semantic=propagate(track.semantic, track.propagation)), temporal
        if track is not None and track.pending is not None:
            track.pending[0].cancel()
        began_s = time.monotonic()
        semantic = infer(frame.image)()
        self._longest_s = max(self._longest_s, time.monotonic() - began_s)
        propagation = Propagation.start(every).with_margins(semantic)
        self._tracks.put(frame.stream, _Track(view, semantic, propagation))
        return replace(frame, semantic=semantic), Temporal(motion=step)
