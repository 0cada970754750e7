"""What is counted of the frames that a stage gives on, read off the frames themselves."""

from __future__ import annotations

from collections import Counter
from typing import Literal, TypeAlias, get_args

from stream_seg.errors import REASONS
from stream_seg.frame import STATES, EngineInfo, Frame, Signal, State, Temporal
from stream_seg.keyframes.quality_ladder import Change
from stream_seg.stages.smooth import RESETS

MISS_REASONS = ("decode_error", "late")
STALLS = ("no data", "frozen")
AWAY = tuple(reason for reason in REASONS if reason != "frozen")
"""Why a source may have been away; a frozen one was there."""
SourceState: TypeAlias = Literal[State, "ended"]
SOURCE_STATES: tuple[SourceState, ...] = (*STATES, "ended")


class SourceTally:
    """Of a source: whether it delivers, and what it could not."""

    def __init__(self) -> None:
        self.up = False
        self.state: SourceState = "starting"
        self.missed: Counter[str] = _zero(MISS_REASONS)
        self.stalls: Counter[str] = _zero(STALLS)
        self.reconnects: Counter[str] = _zero(AWAY)
        self._signal: Signal | None = None

    def note(self, frame: Frame) -> None:
        """Count a stall where it begins, and a reconnect by the reason for which the source had been away."""
        before, self._signal = self._signal, frame.signal
        self.missed.update(frame.missed)
        self.up = frame.signal is None
        self.state = "up" if frame.signal is None else frame.signal.state
        if frame.signal is None:
            if before is not None and before.state != "starting" and before.reason in AWAY:
                self.reconnects[before.reason] += 1
        elif frame.signal.state == "stalled" and (before is None or before.reason != frame.signal.reason):
            self.stalls[str(frame.signal.reason)] += 1

    def end(self, *, failed: bool) -> None:
        """It will deliver nothing more."""
        self.up = False
        if self.state in ("up", "starting"):
            self.state = "down" if failed else "ended"

    def carry_on(self, before: SourceTally) -> None:
        """Count on from a source of the same name: counters never go back."""
        self.missed, self.stalls, self.reconnects = before.missed, before.stalls, before.reconnects


class SegmentTally:
    """Of a segment stage: what computes, which frames it computed, and where on its ladder it is."""

    def __init__(self) -> None:
        self.engine: EngineInfo | None = None
        self.keys = self.rung = 0
        self.changes: Counter[str] = _zero(get_args(Change))

    def note(self, frame: Frame) -> None:
        """Take in a frame; a card that a source drew says nothing."""
        if frame.semantic is None:
            return
        temporal = frame.temporal or Temporal()
        self.engine, self.rung = frame.semantic.engine, temporal.rung
        self.keys += temporal.key
        if temporal.change is not None:
            self.changes[temporal.change] += 1


class SmoothTally:
    """Of a smooth stage: when it forgot the past, and by stream how far it believed the motion to the last frame."""

    def __init__(self) -> None:
        self.resets: Counter[str] = _zero(RESETS)
        self.confidence: dict[str, float] = {}

    def note(self, frame: Frame) -> None:
        """Take in a frame; one that smooth left alone says nothing, a card that the past is forgotten."""
        if frame.signal is not None:
            self.confidence[frame.stream] = 0.0
        if frame.temporal is None:
            return
        if frame.temporal.reset:
            self.resets[frame.temporal.reset] += 1
        self.confidence[frame.stream] = frame.temporal.confidence or 0.0


def _zero(names: tuple[str, ...]) -> Counter[str]:
    return Counter(dict.fromkeys(names, 0))
