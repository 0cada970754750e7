"""Times of the frames of a video file, which begins at 0 s."""

from __future__ import annotations

from fractions import Fraction

from stream_seg.sources.timeline import LEAP_S, StreamClock

SINGLE_FRAME_RATE = Fraction(30)
"""Frames/s of a file with one frame, which lasts 1/30 s."""
LONGEST_STEP_S = 1
"""Limit of the duration of the last frame, which is that of the steps before it: a step may be a pause."""


class FileClock:
    """Times, durations and usual interval of the frames of a file, in ticks of `tick` seconds, starting at 0."""

    def __init__(self, tick: Fraction) -> None:
        self.tick, self._clock, self._last = tick, StreamClock(leap_s=LEAP_S), 0
        self._step = max(1, round(LONGEST_STEP_S / tick))
        self.interval = max(1, round(1 / (tick * SINGLE_FRAME_RATE)))

    def place(self, time_s: Fraction) -> tuple[int, int]:
        """Return time and likely duration of the next frame: the smaller of the last two steps, one may be a pause."""
        first = self._clock.last_s is None
        if first:
            self._clock.restart(time_s, at_s=0)
        pts = self._clock.place(time_s, self.tick, interval_s=self.interval * self.tick)
        if not first:
            self.interval, self._step = min(pts - self._last, self._step), pts - self._last
        self._last = pts
        return pts, self.interval
