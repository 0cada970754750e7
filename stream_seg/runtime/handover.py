"""State handed from a removed source to its replacement: counters by source name, number and time by stream."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from stream_seg.frame import Frame
from stream_seg.runtime.counters import SourceCounters
from stream_seg.runtime.histogram import Samples
from stream_seg.sources.timeline import StreamClock


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


class StreamEnd(NamedTuple):
    """Number, time and time of capture of a stream's last frame when its source was removed."""

    seq: int
    time_s: Fraction
    captured_ns: int


class Continuation:
    """Renumber the frames of a replacement so that they continue the stream: numbers and times only grow."""

    def __init__(self, end: StreamEnd) -> None:
        self._end = end
        self._clock = StreamClock(last_s=end.time_s)
        self._begun = False

    def place(self, frame: Frame) -> Frame:
        """Return the replacement's next frame with its number and time in the stream.

        The first is as far behind the stream's last frame as they were captured apart.
        """
        tick = frame.time_base
        if not self._begun:
            passed_s = Fraction(frame.captured_ns - self._end.captured_ns, 10**9)
            self._clock.restart(frame.pts * tick, at_s=self._end.time_s + passed_s)
            self._begun = True
        return replace(frame, seq=self._end.seq + 1 + frame.seq, pts=self._clock.place(frame.pts * tick, tick))
