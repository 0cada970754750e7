"""Counters of the frames that a stage yields, read from the frames themselves."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from stream_seg.errors import REASONS
from stream_seg.frame import QUALITY_CHANGES, RESETS, EngineInfo, Frame, Signal, SourceState, Temporal
from stream_seg.runtime.histogram import Samples

MISS_REASONS = ("decode_error", "late")
STALLS = ("no data", "frozen")
OUTAGES = tuple(reason for reason in REASONS if reason != "frozen")
"""Reasons for which a source is disconnected; a frozen source stays connected."""


class SourceCounters:
    """State of a source, and what it could not deliver."""

    def __init__(self) -> None:
        self.up = False
        self.state: SourceState = "starting"
        self.missed: Counter[str] = _zeros(MISS_REASONS)
        self.stalls: Counter[str] = _zeros(STALLS)
        self.reconnects: Counter[str] = _zeros(OUTAGES)
        self._signal: Signal | None = None

    def add(self, frame: Frame) -> None:
        """Count a stall at its beginning, and a reconnect by the reason of the outage before."""
        before, self._signal = self._signal, frame.signal
        self.missed.update(frame.missed)
        self.up = frame.signal is None
        self.state = "up" if frame.signal is None else frame.signal.state
        if frame.signal is None:
            if before is not None and before.state != "starting" and before.reason in OUTAGES:
                self.reconnects[before.reason] += 1
        elif frame.signal.state == "stalled" and (before is None or before.reason != frame.signal.reason):
            self.stalls[str(frame.signal.reason)] += 1

    def end(self, *, failed: bool) -> None:
        """Set the final state: the source delivers nothing more."""
        self.up = False
        if self.state in ("up", "starting"):
            self.state = "down" if failed else "ended"

    def resume(self, before: SourceCounters) -> None:
        """Continue the counts of a removed source of the same name: counters never decrease."""
        self.missed, self.stalls, self.reconnects = before.missed, before.stalls, before.reconnects


class SourceTotals(NamedTuple):
    """Counters of a removed source, continued by the next source of its name."""

    yielded: int
    placeholders: int
    duration_ms: Samples
    source: SourceCounters

    @property
    def images(self) -> int:
        """Return the number of frames yielded that are no placeholders."""
        return self.yielded - self.placeholders


class LabelCounters:
    """Engine, key frames and quality level of a stage that adds labels to frames."""

    def __init__(self) -> None:
        self.engine: EngineInfo | None = None
        self.keys = self.quality_level = 0
        self.changes: Counter[str] = _zeros(QUALITY_CHANGES)

    def add(self, frame: Frame) -> None:
        """Count a frame. A frame without labels, such as a placeholder, changes nothing."""
        if frame.semantic is None:
            return
        temporal = frame.temporal or Temporal()
        self.engine, self.quality_level = frame.semantic.engine, temporal.quality_level
        self.keys += temporal.key
        if temporal.quality_change is not None:
            self.changes[temporal.quality_change] += 1


class SmoothingCounters:
    """Resets of a stage that smooths over time, and by stream its confidence in the motion to the last frame."""

    def __init__(self) -> None:
        self.resets: Counter[str] = _zeros(RESETS)
        self.confidence: dict[str, float] = {}

    def add(self, frame: Frame) -> None:
        """Count a frame. A placeholder sets the confidence to 0; a frame without temporal data changes nothing."""
        if frame.signal is not None:
            self.confidence[frame.stream] = 0.0
        if frame.temporal is None:
            return
        if frame.temporal.reset:
            self.resets[frame.temporal.reset] += 1
        self.confidence[frame.stream] = frame.temporal.confidence or 0.0


def _zeros(names: tuple[str, ...]) -> Counter[str]:
    return Counter(dict.fromkeys(names, 0))
