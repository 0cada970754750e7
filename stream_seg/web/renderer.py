"""Render the views that somebody watches: each is drawn and encoded once for all its viewers.

All rendering happens in one thread, so viewers never cost the pipeline more than one core.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TypeAlias

import cv2
import numpy as np

from stream_seg.frame import Frame
from stream_seg.ops.blend import blend
from stream_seg.ops.draw import BACKGROUND, opacity_table
from stream_seg.types import Image
from stream_seg.web.schemas import View, ViewSettings
from stream_seg.web.state import PageState

ViewKey: TypeAlias = tuple[str, View]
"""A stream's name and a view of it."""


def render(frame: Frame, view: View, settings: ViewSettings, *, max_width: int | None = None) -> Image:
    """Draw a view of a frame, at most `max_width` wide. The frame is not modified.

    Every view of a frame without classes is its image.
    """
    image = frame.image
    height, width = image.shape[:2]
    if max_width is not None and width > max_width:
        size = (max_width, max(1, round(height * max_width / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if view == "original" or frame.semantic is None:
        return image
    classes = frame.semantic.classes
    canvas = np.zeros_like(image) if view == "mask" else np.array(image, order="C")
    exceptions = {BACKGROUND: 1.0} if view == "mask" else {}
    exceptions |= dict.fromkeys(settings.hidden, 0.0)
    opacity = opacity_table(classes, 1.0 if view == "mask" else settings.opacity, exceptions)
    blend(canvas, frame.semantic.labels, classes.bgr, opacity, soft=view == "overlay")
    return canvas


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Encode an image as JPEG of `quality` 1 to 100."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def encode_png(image: Image) -> bytes:
    """Encode an image as PNG, which is lossless."""
    return cv2.imencode(".png", image)[1].tobytes()


class Renderer(Thread):
    """Render watched views until the page state is closed, and pass each JPEG of `quality` 1 to 100 to `publish`."""

    def __init__(self, state: PageState, quality: int, max_width: int, max_fps: float) -> None:
        super().__init__(name="page renderer", daemon=True)
        self.quality, self.max_width, self.max_fps = quality, max_width, max_fps
        self.publish: Callable[[ViewKey, bytes], None] = lambda _key, _jpeg: None
        self._state = state
        self._viewers: Counter[ViewKey] = Counter()
        self._lock = Lock()
        self._rendered: dict[ViewKey, tuple[int, ViewSettings]] = {}
        self._due_s: dict[ViewKey, float] = {}

    @contextmanager
    def watch(self, key: ViewKey) -> Iterator[None]:
        """Render a view while the body runs. The first viewer gets the newest frame at once."""
        with self._lock:
            if not self._viewers[key]:
                self._rendered.pop(key, None)
            self._viewers[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._viewers[key] -= 1
                self._viewers += Counter()  # drops keys with a count of 0

    def run(self) -> None:
        version = 0
        try:
            while not self._state.closed:
                with self._lock:
                    keys = list(self._viewers)
                streams = self._state.streams() if keys else {}
                early = [self._update(k, streams[k[0]].frame, streams[k[0]].version) for k in keys if k[0] in streams]
                # A frame wakes this thread at once. Views not yet due, new viewers and changed settings are polled.
                version = self._state.wait(version, 0.005 if any(early) else 0.05)
        except Exception as error:  # noqa: BLE001 - any error ends the stage, not only this thread
            self._state.error = error

    def _update(self, key: ViewKey, frame: Frame, version: int) -> bool:
        """Render and publish a view unless it is up to date. Return True if `max_fps` does not allow it yet."""
        settings, now_s, interval_s = self._state.settings, time.monotonic(), 0.95 / self.max_fps
        if self._rendered.get(key) == (version, settings):
            return False
        if now_s < self._due_s.get(key, 0.0):
            return True
        # One interval of slack, so that unevenly spaced frames are not skipped.
        self._due_s[key] = max(self._due_s.get(key, 0.0) + interval_s, now_s - interval_s)
        image = render(frame, key[1], settings, max_width=self.max_width)
        with self._lock:
            self._rendered[key] = version, settings
        self.publish(key, encode_jpeg(image, self.quality))
        return False
