"""Repeat and drop the frames of a video file, so that they follow each other at a constant rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import av

from stream_seg.sources.excerpt import find_slot


class ConstantRate:
    """Turn frames at any times from 0 on into `fps` frames per second, with times in ticks of `tick` seconds.

    A frame is shown until the next one; of several in one interval the first is taken.
    """

    def __init__(self, fps: Fraction, tick: Fraction) -> None:
        self._fps, self._tick = fps, tick
        self._last: av.VideoFrame | None = None
        self._slot = -1
        self._end_s = Fraction(0)

    def add(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Yield the last frame as often as it is repeated before this one, then this one, unless it is dropped."""
        assert frame.pts is not None
        assert frame.time_base is not None
        time_s = frame.pts * frame.time_base
        self._end_s = time_s + frame.duration * frame.time_base
        slot = find_slot(time_s, self._fps)
        if slot > self._slot:
            yield from self._repeat(slot)
            self._last = frame
            yield self._place(frame)

    def finish(self) -> Iterator[av.VideoFrame]:
        """Yield the last frame as often as it is repeated until its end."""
        yield from self._repeat(math.floor(self._end_s * self._fps + Fraction(1, 2)))

    def _repeat(self, end: int) -> Iterator[av.VideoFrame]:
        while self._last is not None and self._slot + 1 < end:
            yield self._place(self._last)

    def _place(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame at the next time. The encoder has its own reference to the image, and copies the time."""
        self._slot += 1
        begin, end = (round(slot / self._fps / self._tick) for slot in (self._slot, self._slot + 1))
        frame.time_base, frame.pts, frame.duration = self._tick, begin, end - begin
        return frame
