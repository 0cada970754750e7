"""The one line of frames of a live source, over all its connections: numbers without a break, times that only grow."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from types import MappingProxyType

import cv2
import numpy as np

from stream_seg.frame import NOTHING, Frame, Signal
from stream_seg.ops.placeholder import banner, no_signal
from stream_seg.sources.live import News
from stream_seg.sources.picture import Picture
from stream_seg.types import Image

SIZE = (360, 640)
"""(height, width) of a card before the first picture; later cards have the last picture's."""
TICK = Fraction(1, 1000)
ASTRAY_S = 10
"""A picture whose time is this far from the clock's has a clock of its own that jumped."""
SLIGHT_S = Fraction(1, 4)
"""So far a source's clock may be set back, and so far the line may be ahead of ours, and nothing is done about it."""
HASTE = Fraction(1, 10)
"""The share of its own time by which a line that is ahead is shortened."""
LARGEST_CARD = 1280
"""Pixels of its longer side: a card of a large camera is drawn smaller and enlarged."""


class Line:
    """Makes frames of pictures and of the news that there are none. Time 0 is its own beginning."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._began_ns = time.monotonic_ns()
        self._seq = -1
        self._last_s = Fraction(-1)
        self._offset_s = self._own_s = Fraction(0)
        self._size = SIZE

    def frame(self, news: News) -> Frame:
        """The next frame: a picture, a picture under a banner, or a card."""
        if news.taken is None:
            now_ns = time.monotonic_ns()
            pts = self._place(self._elapsed_s(now_ns), TICK)
            self._seq += 1
            image = self._card(news.signal, now_ns)
            return Frame(self._stream, self._seq, pts, TICK, now_ns, image, signal=news.signal)
        picture, missed = news.taken
        pts = self._pts(picture, fresh=news.fresh)
        self._seq += 1 + sum(missed.values())
        self._size = picture.image.shape[:2]
        lost = MappingProxyType(dict(missed)) if missed else NOTHING
        image = picture.image
        if news.signal is not None:
            image = banner(image, "frozen: the same picture for", since_s=_since_s(news.signal, picture.captured_ns))
        return Frame(
            self._stream, self._seq, pts, picture.time_base, picture.captured_ns, image, missed=lost, signal=news.signal
        )

    def _pts(self, picture: Picture, *, fresh: bool) -> int:
        """A source's clock starts anew with every connection, and may be set back; here its time goes on.

        What a server keeps for a newcomer comes at once, and runs ahead of the clock: the next connection follows that,
        and the line goes a little faster than the source until the clock has caught up.
        """
        elapsed_s = self._elapsed_s(picture.captured_ns)
        if picture.pts is None:
            return self._place(elapsed_s, picture.time_base)
        own_s = picture.pts * picture.time_base
        step_s, self._own_s = own_s - self._own_s, own_s
        ahead_s = own_s + self._offset_s - elapsed_s
        if fresh or step_s < -SLIGHT_S or abs(ahead_s) > ASTRAY_S:
            follows = self._last_s - elapsed_s > SLIGHT_S
            begin_s = self._last_s + picture.duration * picture.time_base if follows else elapsed_s
            self._offset_s = begin_s - own_s
        elif ahead_s > SLIGHT_S:
            self._offset_s -= max(step_s, Fraction(0)) * HASTE
        return self._place(own_s + self._offset_s, picture.time_base)

    def _place(self, time_s: Fraction, tick: Fraction) -> int:
        pts = round(time_s / tick)
        if pts * tick <= self._last_s:
            pts = math.floor(self._last_s / tick) + 1
        self._last_s = pts * tick
        return pts

    def _elapsed_s(self, now_ns: int) -> Fraction:
        return Fraction(now_ns - self._began_ns, 1_000_000_000)

    def _card(self, signal: Signal | None, now_ns: int) -> Image:
        assert signal is not None
        height, width = self._size
        share = min(1.0, LARGEST_CARD / max(height, width))
        drawn = (max(1, round(height * share)), max(1, round(width * share)))
        said = signal.state if signal.reason is None else f"{signal.state}: {signal.reason}"
        image = no_signal(drawn, self._stream, said, since_s=_since_s(signal, now_ns))
        if drawn == self._size:
            return image
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _since_s(signal: Signal, now_ns: int) -> float:
    return (now_ns - signal.since_ns) / 1e9
