"""What a source leaves that is removed from a running graph, for one of its name or of its stream to go on from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor

from stream_seg.frame import Frame
from stream_seg.runtime.counters import SourceTally
from stream_seg.runtime.histogram import Samples


@dataclass(frozen=True)
class Left:
    """What a source has counted: what one that is removed leaves to the next of its name."""

    yielded: int
    cards: int
    duration_ms: Samples
    source: SourceTally

    @property
    def pictures(self) -> int:
        """The frames yielded that are no cards."""
        return self.yielded - self.cards


@dataclass(frozen=True)
class End:
    """Where a stream was when its source was removed."""

    seq: int
    time_s: Fraction
    captured_ns: int

    @classmethod
    def of(cls, last: Frame) -> End:
        """After its last frame."""
        return cls(last.seq, last.pts * last.time_base, last.captured_ns)


class GoingOn:
    """A stream that another source began: no number comes twice, and no time goes back."""

    def __init__(self, end: End) -> None:
        self._end, self._last_s = end, end.time_s
        self._shift_s: Fraction | None = None

    def placed(self, frame: Frame) -> Frame:
        """The source's next frame with its number and its time in the stream; between its first and the stream's last
        is the time that passed."""
        tick = frame.time_base
        if self._shift_s is None:
            passed_s = Fraction(frame.captured_ns - self._end.captured_ns, 10**9)
            self._shift_s = self._end.time_s + passed_s - frame.pts * tick
        # Ticks differ between cards and pictures, and with them what is rounded up.
        pts = max(frame.pts + ceil(self._shift_s / tick), floor(self._last_s / tick) + 1)
        self._last_s = pts * tick
        return replace(frame, seq=self._end.seq + 1 + frame.seq, pts=pts)
