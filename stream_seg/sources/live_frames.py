"""Frames of a live source over all its connections: numbers without a break, times that only grow."""

from __future__ import annotations

import time
from fractions import Fraction
from types import MappingProxyType

import cv2
import numpy as np

from stream_seg.frame import NOTHING, Frame, Signal
from stream_seg.ops.placeholder import banner, no_signal
from stream_seg.sources.live import News
from stream_seg.sources.timeline import LiveClock
from stream_seg.types import Image

SIZE = (360, 640)
"""(height, width) of a placeholder before the first image; later ones have the size of the last image."""
TICK = Fraction(1, 1000)
"""Seconds; of placeholders."""
LARGEST_PLACEHOLDER = 1280
"""Pixels of the longer side: for a larger camera the placeholder is drawn at this size and enlarged."""


class LiveFrames:
    """Make frames of decoded images and of reports that there is none. Time 0 is when this object was made."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._began_ns = time.monotonic_ns()
        self._clock = LiveClock()
        self._seq = -1
        self._size = SIZE

    def frame(self, news: News) -> Frame:
        """Return the next frame: an image, an image below a banner, or a placeholder."""
        if news.taken is None:
            now_ns = time.monotonic_ns()
            pts = self._clock.place(None, TICK, elapsed_s=self._elapsed_s(now_ns))
            self._seq += 1
            image = self._placeholder(news.signal, now_ns)
            return Frame(self._stream, self._seq, pts, TICK, now_ns, image, signal=news.signal)
        picture, missed = news.taken
        tick = picture.time_base
        pts = self._clock.place(
            None if picture.pts is None else picture.pts * tick,
            tick,
            elapsed_s=self._elapsed_s(picture.captured_ns),
            interval_s=picture.duration * tick,
            connected=news.fresh,
        )
        self._seq += 1 + sum(missed.values())
        self._size = picture.image.shape[:2]
        lost = MappingProxyType(dict(missed)) if missed else NOTHING
        image = picture.image
        if news.signal is not None:
            image = banner(image, "frozen: the same picture for", since_s=_age_s(news.signal, picture.captured_ns))
        return Frame(self._stream, self._seq, pts, tick, picture.captured_ns, image, missed=lost, signal=news.signal)

    def _elapsed_s(self, now_ns: int) -> Fraction:
        return Fraction(now_ns - self._began_ns, 1_000_000_000)

    def _placeholder(self, signal: Signal | None, now_ns: int) -> Image:
        assert signal is not None
        height, width = self._size
        share = min(1.0, LARGEST_PLACEHOLDER / max(height, width))
        size = (max(1, round(height * share)), max(1, round(width * share)))
        state = signal.state if signal.reason is None else f"{signal.state}: {signal.reason}"
        image = no_signal(size, self._stream, state, since_s=_age_s(signal, now_ns))
        if size == self._size:
            return image
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _age_s(signal: Signal, now_ns: int) -> float:
    return (now_ns - signal.since_ns) / 1e9
