"""Clocks of a stream: the times of a source may jump, the times of its frames only grow.

Nothing here reads a clock. Callers pass every time, in seconds, so the same times give the same results.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, NamedTuple

from stream_seg.frame import Frame

RESTART_S = 1
"""A time that falls back by more than this comes from a clock that started anew: a camera that reconnected, a recording
appended to another. A smaller step back is jitter or one wrong time."""
LEAP_S = 600
"""A leap ahead by more than this is a new clock too. A shorter one is a pause, such as an outage of a camera."""
GAP_S = 0.5
"""After a longer pause the motion between two frames tells nothing about the present."""
ASTRAY_S = 10
"""A live frame whose time is this far from the time of its arrival comes from a clock that jumped."""
SLIGHT_S = Fraction(1, 4)
"""Tolerated in a live stream: a step back of the source's clock, and a lead of the stream over the wall clock."""
CATCH_UP = Fraction(1, 10)
"""Share by which the steps of a live stream are shortened while it leads the wall clock by more than SLIGHT_S."""


def discontinuity(step_s: Fraction, *, gap_s: float = GAP_S) -> Literal["back", "gap"] | None:
    """Return why a frame does not continue the one `step_s` before it: time did not grow, or a pause over `gap_s`."""
    if step_s <= 0:
        return "back"
    return "gap" if step_s > gap_s else None


class StreamClock:
    """Map the times of a source, which may jump, to times of a stream, which only grow.

    A time that falls back by more than RESTART_S, or leaps ahead by more than `leap_s`, restarts the clock: the stream
    continues one interval after its last frame. After a single wrong time the next right one restores the clock.
    Times are exact. `last_s` is the time of the last frame, `offset_s` what is added to the source's times.
    """

    def __init__(self, *, last_s: Fraction | None = None, leap_s: float = math.inf) -> None:
        self.last_s, self.offset_s = last_s, Fraction(0)
        self._leap_s = leap_s
        self._former_s: Fraction | None = None  # the offset before a restart that the last frame caused

    def place(self, time_s: Fraction | None, tick: Fraction, *, interval_s: Fraction | int = 0) -> int:
        """Return the time of the next frame in ticks of `tick` seconds, at least one tick after the last.

        A frame without a time, and the first one after a restart, come `interval_s` after the last frame.
        """
        if self.last_s is None:
            return self.advance(self.offset_s + (time_s or 0), tick)
        due_s = self.last_s + interval_s
        if time_s is None:
            return self.advance(due_s, tick)
        former_s, self._former_s = self._former_s, None
        step_s = time_s + self.offset_s - self.last_s
        if former_s is not None and abs(time_s + former_s - self.last_s) <= RESTART_S < abs(step_s):
            self.offset_s = former_s
        elif not -RESTART_S <= step_s <= self._leap_s:
            self._former_s = self.offset_s
            self.restart(time_s, at_s=due_s)
        return self.advance(time_s + self.offset_s, tick)

    def restart(self, time_s: Fraction, *, at_s: Fraction | int) -> None:
        """Map the source's `time_s` to `at_s` of the stream, and its later times accordingly."""
        self.offset_s = at_s - time_s

    def advance(self, at_s: Fraction, tick: Fraction) -> int:
        """Return the tick nearest to `at_s` of the stream that is later than the last frame, and move there."""
        pts = math.floor(at_s / tick + Fraction(1, 2))
        if self.last_s is not None:
            pts = max(pts, math.floor(self.last_s / tick) + 1)
        self.last_s = pts * tick
        return pts


class LiveClock:
    """Times of a live stream over all connections of its source; 0 is where the stream began.

    The source's clock starts anew with every connection and may be set back; the stream's goes on. Frames that a server
    buffered for a new client arrive at once and run ahead of the wall clock: the next connection continues after them,
    and the steps are shortened slightly until the wall clock has caught up.
    """

    def __init__(self) -> None:
        self._clock = StreamClock(last_s=Fraction(-1))
        self._time_s = Fraction(0)

    def place(
        self, time_s: Fraction | None, tick: Fraction, *, elapsed_s: Fraction, interval_s: Fraction, connected: bool
    ) -> int:
        """Return the time of the next frame in ticks of `tick` seconds; without a time it is that of its arrival.

        `elapsed_s` is when it arrived, since the stream began. `connected` marks the first frame of a connection.
        """
        clock, last_s = self._clock, self._clock.last_s or Fraction(0)
        if time_s is None:
            return clock.advance(elapsed_s, tick)
        step_s, self._time_s = time_s - self._time_s, time_s
        lead_s = time_s + clock.offset_s - elapsed_s
        if connected or step_s < -SLIGHT_S or abs(lead_s) > ASTRAY_S:
            leads = last_s - elapsed_s > SLIGHT_S
            clock.restart(time_s, at_s=last_s + interval_s if leads else elapsed_s)
        elif lead_s > SLIGHT_S:
            clock.offset_s -= max(step_s, Fraction(0)) * CATCH_UP
        return clock.advance(time_s + clock.offset_s, tick)


class StreamEnd(NamedTuple):
    """Number, time and time of capture of a stream's last frame when its source was removed."""

    seq: int
    time_s: Fraction
    captured_ns: int


class Continuation:
    """Renumber the frames of a replacement so that they continue the stream: numbers and times only grow."""

    def __init__(self, end: StreamEnd) -> None:
        self._end, self._clock, self._begun = end, StreamClock(last_s=end.time_s), False

    def place(self, frame: Frame) -> Frame:
        """Return the replacement's next frame with its number and time in the stream.

        The first is as far behind the stream's last frame as they were captured apart.
        """
        tick = frame.time_base
        if not self._begun:
            passed_s = Fraction(frame.captured_ns - self._end.captured_ns, 10**9)
            self._clock.restart(frame.pts * tick, at_s=self._end.time_s + passed_s)
            self._begun = True
        return frame.evolve(seq=self._end.seq + 1 + frame.seq, pts=self._clock.place(frame.pts * tick, tick))


class Pacer:
    """Wall-clock times at which the frames of a recording are due, as far apart as their own times.

    A frame without a time, or whose time does not grow or leaps ahead by more than `longest_s`, follows after
    `interval_s`. A late frame is due at once; those after it make up for at most `slack_s`.
    """

    def __init__(self, *, slack_s: float = 0.0) -> None:
        self._slack_s = slack_s
        self._time_s = 0.0
        self._due_s: float | None = None

    def due_s(self, time_s: float | None, now_s: float, *, longest_s: float, interval_s: float = 0.0) -> float:
        """Return when the next frame is due, on the clock of `now_s`."""
        step_s = interval_s if time_s is None or self._due_s is None else time_s - self._time_s
        if not 0 < step_s <= longest_s:
            step_s = min(interval_s, longest_s)
        self._time_s = self._time_s + step_s if time_s is None else time_s
        last_due_s = now_s if self._due_s is None else self._due_s
        self._due_s = max(last_due_s + step_s, now_s - self._slack_s)
        return self._due_s
