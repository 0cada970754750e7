"""`smooth`: steady the class scores of a stream over time."""

from __future__ import annotations

from dataclasses import dataclass as plain
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Literal, TypeAlias, get_args

import cv2
from pydantic import Field
from pydantic.dataclasses import dataclass

from stream_seg.arrays import Scores
from stream_seg.errors import ConfigError
from stream_seg.frame import Frame, Temporal
from stream_seg.ops import motion as ops
from stream_seg.stage import STRICT, Frames

Reset: TypeAlias = Literal["start", "gap", "back", "shape", "cut"]
"""Why the past is forgotten: the stream begins, a pause of more than `gap_s`, time goes back (a camera that connected
anew), the picture or the scores change their shape, or the picture has nothing to do with the last one."""
RESETS: tuple[str, ...] = get_args(Reset)


@plain(frozen=True)
class _Past:
    """What is kept of a stream's last frame: its number and time, its picture's size and luminance, its scores as given
    on."""

    seq: int
    time_s: Fraction
    size: tuple[int, ...]
    luma: ops.Luma
    scores: Scores


@dataclass(config=STRICT)
class Smooth:
    """Steady the class scores of a stream over time: an average along the motion in the picture.

    The last result is moved to where its points are now (optical flow) and mixed in with at most `weight`: less where
    the moved picture is not the new one, and where the network is sure. It begins anew with a stream, after a pause of
    more than `gap_s`, when time goes back, at a cut, and when pictures or scores change their shape.
    """

    weight: Annotated[float, Field(ge=0, lt=1, description="share of the past, at most; 0 changes nothing")] = 0.8
    gap_s: Annotated[float, Field(gt=0, description="seconds without a frame after which the past says nothing")] = 0.5

    def __call__(self, frames: Frames) -> Frames:
        past: dict[str, _Past] = {}
        for frame in frames:
            if frame.signal is not None:  # what comes after it has nothing to do with what was before
                past.pop(frame.stream, None)
                yield frame
                continue
            scores = _scores(frame)
            if self.weight > 0:
                frame, past[frame.stream] = self._steadied(past.get(frame.stream), frame, scores)
            yield frame

    def _steadied(self, past: _Past | None, frame: Frame, scores: Scores) -> tuple[Frame, _Past]:
        luma = ops.luma(frame.image)
        reset, confidence = self._reset(past, frame, scores), None
        if past is not None and reset is None:
            motion, believed = _motion(past, luma, frame)
            if ops.is_cut(believed):
                reset = "cut"
            else:
                confidence = float(cv2.mean(believed)[0])
                scores = mixed(past.scores, scores, motion, believed, weight=self.weight)
        assert frame.semantic is not None
        temporal = replace(frame.temporal or Temporal(), reset=reset, confidence=confidence)
        frame = replace(frame, semantic=replace(frame.semantic, scores=scores), temporal=temporal)
        return frame, _Past(frame.seq, frame.pts * frame.time_base, frame.image.shape, luma, scores)

    def _reset(self, past: _Past | None, frame: Frame, scores: Scores) -> Reset | None:
        """What is known without looking at the picture."""
        if past is None:
            return "start"
        if past.scores.shape != scores.shape or past.size != frame.image.shape:
            return "shape"
        pause_s = frame.pts * frame.time_base - past.time_s
        if pause_s <= 0:
            return "back"
        return "gap" if pause_s > self.gap_s else None


def _motion(past: _Past, luma: ops.Luma, frame: Frame) -> tuple[ops.Motion, ops.Confidence]:
    """As `segment` found it, if it had to: the same function of the same two pictures."""
    step = frame.temporal.step if frame.temporal is not None else None
    if step is not None and step.since == past.seq:
        return step.motion, step.believed
    motion = ops.flow(past.luma, luma)
    return motion, ops.confidence(past.luma, luma, motion)


def mixed(past: Scores, now: Scores, motion: ops.Motion, believed: ops.Confidence, *, weight: float) -> Scores:
    """`carried_on` with motion and confidence of any resolution."""
    from stream_seg.ops.temporal import carried_on  # brings numba: not for a help text

    height, width = now.shape[1:]
    if believed.shape != (height, width):
        believed = cv2.resize(believed, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return carried_on(past, now, ops.resized(motion, (height, width)), believed, weight=weight)


def _scores(frame: Frame) -> Scores:
    if frame.semantic is None:
        raise ConfigError("smooth: the frames have no classes yet; put a segment stage before it")
    if frame.semantic.scores is None:
        network = frame.semantic.engine.network
        raise ConfigError(f"smooth: the network {network} gives labels without scores; leave smooth out")
    return frame.semantic.scores
