"""The part of a source that is used: from a start on, for a duration, at most so many frames per second."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeAlias

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from pydantic import BeforeValidator, Field

from stream_seg.errors import SourceError
from stream_seg.redact import quote_value
from stream_seg.sources.timeline import StreamClock

MICROSECOND = Fraction(1, 1_000_000)
"""Times are compared to the microsecond, to which records round them."""
MARGIN_S = 1
"""A seek aims this much before the start. FFmpeg looks for a decoding time, which B-frames make earlier than that of
the image: without the margin it may land on the key frame behind the start."""
NEAR_S = 2
"""A start before this is reached by decoding: a seek would gain nothing."""
EARLY = Fraction(15, 100)
"""Share of an interval by which a frame may be early for its number: times in .mkv are rounded to milliseconds. Half an
interval would fall between two frames where every second one is taken."""

Choice: TypeAlias = Literal["skip", "take", "end"]


def parse_time(value: Any) -> Any:
    """Return the seconds of a text such as "90", "1:30" or "1:02:03.5"; any other value as it is."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", value.strip())
    if match is None or (match[2] and float(match[3]) >= 60) or (match[1] and int(match[2]) >= 60):
        raise ValueError(f"expected seconds or [HH:]MM:SS, got {quote_value(value)}")
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3])


Start = Annotated[float, BeforeValidator(parse_time), Field(ge=0, allow_inf_nan=False)]
Duration = Annotated[float, BeforeValidator(parse_time), Field(gt=0, allow_inf_nan=False)]
"""Seconds, also written as [HH:]MM:SS."""


class Excerpt:
    """Choose the frames of one pass through a source, in the order of their times.

    Frames from `start_s` on are taken, up to and without `start_s + duration_s` (None: to the end), at most `fps` per
    second (None: all). Times count from the beginning of the recording.
    """

    def __init__(self, start_s: float = 0, duration_s: float | None = None, fps: float | None = None) -> None:
        self.start_s = _exact(start_s)
        self._end_s = None if duration_s is None else self.start_s + _exact(duration_s)
        self._fps = None if fps is None else _exact(fps)
        self.whole = not self.start_s and self._end_s is None and self._fps is None
        """True if every frame is taken, whatever its time."""
        self._clock = StreamClock()
        self._first_s, self._slot = Fraction(0), -1
        self.begun = not self.start_s
        """True from the first frame at or after the start on."""

    def choose(self, time_s: Fraction | None, *, interval_s: Fraction | int = 0) -> Choice:
        """Return whether to take the next frame; "end": neither this one nor any after it.

        A frame without a time comes `interval_s` after the last one.
        """
        if self.whole:  # the usual case, without exact arithmetic
            return "take"
        time_s = self._clock.place(time_s, MICROSECOND, interval_s=interval_s) * MICROSECOND
        if self._end_s is not None and time_s >= self._end_s:
            return "end"
        if time_s < self.start_s:
            return "skip"
        if self._slot < 0:
            self.begun, self._first_s = True, time_s
        if self._fps is None:
            self._slot = 0
            return "take"
        slot = find_slot(time_s - self._first_s, self._fps)
        if slot <= self._slot:
            return "skip"
        self._slot = slot
        return "take"

    def check_begun(self, name: str) -> None:
        """Raise SourceError if no frame reached the start of the excerpt; `name` is that of the source."""
        if not self.begun and self._clock.last_s is not None:
            last_s = float(self._clock.last_s)
            raise SourceError(
                f"{name}: no frame at {float(self.start_s):g} s or later; the last one is at {last_s:g} s"
            )

    def count(self, frames: int, rate: Fraction) -> int:
        """Return how many of `frames` frames at a constant rate are taken."""
        first = math.ceil(self.start_s * rate)
        end = frames if self._end_s is None else min(frames, math.ceil(self._end_s * rate))
        taken = max(0, end - first)
        if taken and self._fps is not None and self._fps < rate:
            taken = find_slot((taken - 1) / rate, self._fps) + 1
        return taken


def find_slot(time_s: Fraction, fps: Fraction) -> int:
    """Return the number of the last frame, of `fps` per second from time 0 on, that is due at this time."""
    return math.floor(time_s * fps + EARLY)


def find_key_frame(
    container: InputContainer, stream: VideoStream, time_s: Fraction, *, begin_s: Fraction
) -> int | None:
    """Return where to seek, in ticks of the stream, so that every image from `time_s` on can be decoded.

    None: at the beginning, since no key frame before is known or the container cannot seek. `begin_s` is the time of
    the beginning. The container is left anywhere. The decoder skips what comes before the first key frame, and all
    images later than that are whole, also in an open group of pictures.
    """
    tick, margin_s = stream.time_base or Fraction(1, av.time_base), MARGIN_S
    with suppress(av.FFmpegError):
        while (target_s := time_s - margin_s) > begin_s:
            target = int(target_s / tick)
            container.seek(target, stream=stream)
            pts = next((p.pts for p in container.demux(stream) if p.is_keyframe or not p.size), None)
            if pts is not None and pts * tick <= time_s:
                return target
            margin_s *= 4
    return None


def _exact(value: float) -> Fraction:
    """Return a number as it is written in decimals: 0.1 is a tenth."""
    return Fraction(str(value))
