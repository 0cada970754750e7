"""`smooth`: steady the class scores of a stream over time."""

from __future__ import annotations

from dataclasses import dataclass as plain
from dataclasses import replace
from fractions import Fraction
from typing import Annotated

import cv2
from pydantic import Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError
from stream_seg.frame import Frame, FrameMotion, ReferenceScores, Reset, Semantic, Temporal, WarpedScores
from stream_seg.ops import motion as ops
from stream_seg.per_stream import PerStream
from stream_seg.sources.timeline import GAP_S, discontinuity
from stream_seg.stages.base import STRICT, Frames, Traits
from stream_seg.types import Scores


@plain(frozen=True)
class _Now:
    """What is kept of a frame: number, time, size and luminance of its picture."""

    seq: int
    time_s: Fraction
    size: tuple[int, ...]
    luma: ops.Luma


@plain(frozen=True)
class _Past:
    """What is kept of a stream: its last frame; and the last result that was not merely carried: which scores it was
    made of, the luminance it belongs to, itself, and the motion from there to the last frame, None if that is the same.
    """

    last: _Now
    source: Scores
    seen: ops.Luma
    base: ReferenceScores
    motion: ops.Motion | None = None


@dataclass(config=STRICT)
class Smooth:
    """Steady the class scores of a stream over time: an average along the motion in the picture.

    The last result is moved to where its points are now (optical flow) and mixed in with at most `weight`: less where
    the moved picture is not the new one, and where the network is sure. It begins anew with a stream, after a pause of
    more than `gap_s`, when time goes back, at a cut, and when pictures or scores change their shape.
    """

    traits = Traits(produces=("smoothing",))

    weight: Annotated[float, Field(ge=0, lt=1, description="share of the past, at most; 0 changes nothing")] = 0.8
    gap_s: Annotated[float, Field(gt=0, description="pause in seconds after which the past is forgotten")] = GAP_S

    def __call__(self, frames: Frames) -> Frames:
        past: PerStream[_Past] = PerStream()
        for frame in frames:
            if frame.signal is not None:  # what comes after it has nothing to do with what was before
                past.drop(frame.stream)
                yield frame
                continue
            source = _source(frame)
            if self.weight > 0:
                frame, kept = self._steadied(past.get(frame.stream), frame, source)
                past.put(frame.stream, kept)
            yield frame

    def _steadied(self, past: _Past | None, frame: Frame, source: Scores) -> tuple[Frame, _Past]:
        assert frame.semantic is not None
        reset = self._reset(past, frame, source)
        step = _step(past, frame) if past is not None and reset is None else None
        if step is not None and ops.is_cut(step.confidence):
            reset = "cut"
        luma = ops.compute_luma(frame.image) if step is None or step.luma is None else step.luma
        now = _Now(frame.seq, frame.pts * frame.time_base, frame.image.shape, luma)
        if past is None or step is None or reset is not None:
            temporal = replace(frame.temporal or Temporal(), reset=reset, confidence=None)
            return replace(frame, temporal=temporal), _Past(now, source, luma, ReferenceScores(_scores(frame.semantic)))
        temporal = replace(frame.temporal or Temporal(), reset=None, confidence=float(cv2.mean(step.confidence)[0]))
        past = self._joined(past, frame.semantic, step, now, source)
        scores = past.base.scores if past.motion is None else WarpedScores(past.base, past.motion)
        return replace(frame, semantic=replace(frame.semantic, scores=scores), temporal=temporal), past

    def _joined(self, past: _Past, said: Semantic, step: FrameMotion, now: _Now, source: Scores) -> _Past:
        """The past with a frame more: carried on where nothing new is said, else mixed with what is."""
        from stream_seg.ops.propagate import compose_motion  # brings numba: not for a help text

        motion = step.flow if past.motion is None else compose_motion(past.motion, step.flow)
        if source is past.source:
            return replace(past, last=now, motion=motion)
        confidence = step.confidence if past.motion is None else ops.estimate_confidence(past.seen, now.luma, motion)
        scores = mixed(past.base.scores, _scores(said), motion, confidence, weight=self.weight)
        return _Past(now, source, now.luma, ReferenceScores(scores))

    def _reset(self, past: _Past | None, frame: Frame, source: Scores) -> Reset | None:
        """What is known without looking at the picture."""
        if past is None:
            return "start"
        if past.source.shape != source.shape or past.last.size != frame.image.shape:
            return "shape"
        return discontinuity(frame.pts * frame.time_base - past.last.time_s, gap_s=self.gap_s)


def _step(past: _Past, frame: Frame) -> FrameMotion:
    """As `segment` found it, if it had to: the same function of the same two pictures."""
    step = frame.temporal.motion if frame.temporal is not None else None
    if step is not None and step.from_seq == past.last.seq:
        return step
    luma = ops.compute_luma(frame.image)
    motion = ops.estimate_flow(past.last.luma, luma)
    return FrameMotion(past.last.seq, motion, ops.estimate_confidence(past.last.luma, luma, motion), luma)


def mixed(past: Scores, now: Scores, motion: ops.Motion, confidence: ops.Confidence, *, weight: float) -> Scores:
    """`carried_on` with motion and confidence of any resolution."""
    from stream_seg.ops.blend_scores import blend_scores  # brings numba: not for a help text

    height, width = now.shape[1:]
    if confidence.shape != (height, width):
        confidence = cv2.resize(confidence, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return blend_scores(past, now, ops.resize_motion(motion, (height, width)), confidence, weight=weight)


def _source(frame: Frame) -> Scores:
    """The scores that a frame's are, or are carried from: frames with the same ones say nothing new."""
    if frame.semantic is None:
        raise ConfigError("smooth: the frames have no classes yet; put a segment stage before it")
    given = frame.semantic.stored_scores
    if given is None:
        network = frame.semantic.engine.network
        raise ConfigError(f"smooth: the network {network} gives labels without scores; leave smooth out")
    return given.reference.scores if isinstance(given, WarpedScores) else given


def _scores(said: Semantic) -> Scores:
    assert said.scores is not None
    return said.scores
