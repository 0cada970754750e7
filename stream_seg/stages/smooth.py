"""`smooth`: steady the class scores of a stream over time."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from stream_seg.arrays import Scores
from stream_seg.errors import ConfigError
from stream_seg.frame import Frame
from stream_seg.stage import STRICT, Frames


@dataclass(config=STRICT)
class Smooth:
    """Steady the class scores of a stream over time: an exponential average, begun anew after a gap.

    average = weight x average + (1 - weight) x scores. It begins anew with a stream, after a pause of more than
    `gap_s`, when time goes back, and when the scores change their shape.
    """

    weight: Annotated[float, Field(ge=0, lt=1, description="share of the past in the average; 0 changes nothing")] = 0.4
    gap_s: Annotated[float, Field(gt=0, description="seconds without a frame after which the past says nothing")] = 0.5

    def __call__(self, frames: Frames) -> Frames:
        past: dict[str, tuple[Frame, Scores]] = {}
        for frame in frames:
            if frame.signal is not None:  # what comes after it has nothing to do with what was before
                past.pop(frame.stream, None)
                yield frame
                continue
            scores = _scores(frame)
            before = past.get(frame.stream)
            if before is not None and self._continues(*before, frame, scores):
                scores = average(before[1], scores, weight=self.weight)
            past[frame.stream] = (frame, scores)
            assert frame.semantic is not None
            yield replace(frame, semantic=replace(frame.semantic, scores=scores))

    def _continues(self, last: Frame, past: Scores, frame: Frame, scores: Scores) -> bool:
        pause_s = frame.pts * frame.time_base - last.pts * last.time_base
        return past.shape == scores.shape and 0 < pause_s <= self.gap_s


def average(past: Scores, now: Scores, *, weight: float) -> Scores:
    """weight x past + (1 - weight) x now, both float32 (C, h, w)."""
    mixed = cv2.addWeighted(past.reshape(len(past), -1), weight, now.reshape(len(now), -1), 1 - weight, 0)
    return np.asarray(mixed, np.float32).reshape(now.shape)


def _scores(frame: Frame) -> Scores:
    if frame.semantic is None:
        raise ConfigError("smooth: the frames have no classes yet; put a segment stage before it")
    if frame.semantic.scores is None:
        network = frame.semantic.engine.network
        raise ConfigError(f"smooth: the network {network} gives labels without scores; leave smooth out")
    return frame.semantic.scores
