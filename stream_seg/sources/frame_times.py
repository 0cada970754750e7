"""Times of decoded frames, in the ticks of their container or by their arrival."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

MILLISECOND = Fraction(1, 1000)
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS


class FrameTimes:
    """Times of decoded frames. A live stream whose format has none gets those of arrival, in milliseconds."""

    def __init__(self, container: InputContainer, stream: VideoStream, *, live: bool) -> None:
        self._stream, self._start_ns = stream, time.monotonic_ns()
        self._by_arrival = live and not _has_times(container)
        self.time_base = MILLISECOND if self._by_arrival else stream.time_base or Fraction(1, av.time_base)
        self._begin_s = None if live else begin_of(container)

    def find_tick(self, start_s: Fraction) -> int | None:
        """Return the first tick at or after `start_s` of a recording; None if its beginning is unknown."""
        return None if self._begin_s is None else math.ceil((self._begin_s + start_s) / self.time_base)

    def read(self, frame: av.VideoFrame, captured_ns: int) -> tuple[int | None, int]:
        """Return time and duration of a frame, in ticks; 0 for an unknown duration."""
        if self._by_arrival:
            return (captured_ns - self._start_ns) // 10**6, 0
        rate = self._stream.average_rate
        return frame.pts, frame.duration or (round(1 / (rate * self.time_base)) if rate else 0)

    def since_begin(self, pts: int | None) -> Fraction | None:
        """Return the seconds from the beginning of the recording, or from the first frame, to a time in ticks."""
        if pts is None:
            return None
        time_s = pts * self.time_base
        if self._begin_s is None:
            self._begin_s = time_s
        return time_s - self._begin_s


def begin_of(container: InputContainer) -> Fraction | None:
    """Return the time at which a recording begins, from which players count; None if unknown."""
    return None if container.start_time is None else Fraction(container.start_time, av.time_base)


def _has_times(container: InputContainer) -> bool:
    """Return False for a format without times, for which FFmpeg invents 25 frames/s: JPEGs one after another, a raw
    bit stream."""
    name = container.format.name
    return not (container.format.flags & _NO_TIMESTAMPS or name == "rawvideo" or name.endswith("_pipe"))
