"""Frames of a live source over all its connections: numbers without a break, times that only grow."""

from __future__ import annotations

import time
from fractions import Fraction
from types import MappingProxyType

import cv2
import numpy as np

from stream_seg.frame import NONE_MISSED, Frame, Signal
from stream_seg.ops.placeholder import draw_banner, draw_placeholder
from stream_seg.sources.live import Update
from stream_seg.sources.timeline import LiveClock
from stream_seg.types import Image

SIZE = (360, 640)
"""(height, width) of a placeholder before the first image; later ones have the size of the last image."""
TICK = Fraction(1, 1000)
"""Seconds; of placeholders."""
LARGEST_PLACEHOLDER = 1280
"""Pixels of the longer side: for a larger camera the placeholder is drawn at this size and enlarged."""


class LiveFrames:
    """Turn the updates of a live source into frames. Time 0 is when this object was created."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._start_ns = time.monotonic_ns()
        self._clock = LiveClock()
        self._seq = -1
        self._size = SIZE

    def frame(self, update: Update) -> Frame:
        """Return the next frame: an image, a frozen image with a banner, or a placeholder."""
        signal = update.signal
        if update.item is None:
            now_ns = time.monotonic_ns()
            pts = self._clock.place(None, TICK, elapsed_s=self._elapsed_s(now_ns))
            self._seq += 1
            return Frame(self._stream, self._seq, pts, TICK, now_ns, self._placeholder(signal, now_ns), signal=signal)
        decoded, missed = update.item
        image, tick = decoded.image, decoded.time_base
        pts = self._clock.place(
            None if decoded.pts is None else decoded.pts * tick,
            tick,
            elapsed_s=self._elapsed_s(decoded.captured_ns),
            interval_s=decoded.duration * tick,
            connected=update.connected,
        )
        self._seq += 1 + sum(missed.values())
        self._size = image.shape[:2]
        lost = MappingProxyType(dict(missed)) if missed else NONE_MISSED
        if signal is not None:
            image = draw_banner(image, "frozen: the same image for", since_s=_age_s(signal, decoded.captured_ns))
        return Frame(self._stream, self._seq, pts, tick, decoded.captured_ns, image, missed=lost, signal=signal)

    def _elapsed_s(self, now_ns: int) -> Fraction:
        return Fraction(now_ns - self._start_ns, 1_000_000_000)

    def _placeholder(self, signal: Signal | None, now_ns: int) -> Image:
        assert signal is not None
        height, width = self._size
        share = min(1.0, LARGEST_PLACEHOLDER / max(height, width))
        size = (max(1, round(height * share)), max(1, round(width * share)))
        state = signal.state if signal.reason is None else f"{signal.state}: {signal.reason}"
        image = draw_placeholder(size, self._stream, state, since_s=_age_s(signal, now_ns))
        if size == self._size:
            return image
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _age_s(signal: Signal, now_ns: int) -> float:
    return (now_ns - signal.since_ns) / 1e9
