"""What viewers see: every view of a stream drawn and encoded once for all who watch it, and not at all for nobody.

One thread draws for everybody, so that viewers never cost the pipeline more than one core, however many they are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Literal, TypeAlias

import cv2
import numpy as np

from stream_seg.frame import Frame
from stream_seg.types import Classes, Image
from stream_seg.web.state import Board

View = Literal["overlay", "original", "mask"]
Watched: TypeAlias = tuple[str, View]
"""A stream's name and how it is looked at."""
BACKGROUND = "background"
"""Of this class nothing is drawn over a picture: its colour would only darken it."""


@dataclass(frozen=True)
class Settings:
    """How classes are drawn, for all viewers: opacity of the overlay, 0 to 1, and the names that are left out."""

    opacity: float
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Quality:
    """Limits of the moving pictures: JPEG quality 1 to 100, width in pixels and frames per second at most."""

    jpeg: int
    max_width: int
    max_fps: float


def drawn(frame: Frame, view: View, settings: Settings, *, max_width: int | None = None) -> Image:
    """A frame as a view shows it, at most `max_width` wide. The frame itself is left as it is; one without classes is
    shown as it is in every view."""
    image = _narrowed(frame.image, max_width)
    if view == "original" or frame.semantic is None:
        return image
    from stream_seg.ops.blend import blend  # brings numba: not for a help text

    classes = frame.semantic.classes
    canvas = np.zeros_like(image) if view == "mask" else np.array(image, order="C")
    opacity = _opacities(classes, settings, full=view == "mask")
    blend(canvas, frame.semantic.labels, classes.bgr, opacity, soft=view == "overlay")
    return canvas


def jpeg(image: Image, quality: int) -> bytes:
    """The picture as a JPEG."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def png(image: Image) -> bytes:
    """The picture as a PNG, nothing lost."""
    return cv2.imencode(".png", image)[1].tobytes()


def _narrowed(image: Image, max_width: int | None) -> Image:
    height, width = image.shape[:2]
    if max_width is None or width <= max_width:
        return image
    size = (max_width, max(1, round(height * max_width / width)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _opacities(classes: Classes, settings: Settings, *, full: bool) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    opacity = np.zeros(256, np.float32)  # void stays as it is
    for label, name in enumerate(classes.names):
        if name not in settings.hidden:
            opacity[label] = 1.0 if full else 0.0 if name == BACKGROUND else settings.opacity
    return opacity


class Darkroom:
    """Draws what is watched, in a thread of its own, and gives each picture to `publish`."""

    def __init__(self, board: Board, settings: Settings, quality: Quality) -> None:
        self.settings, self.quality = settings, quality
        self.publish: Callable[[Watched, bytes], None] = lambda _watched, _picture: None
        self.encoded = 0
        self._board = board
        self._watchers: Counter[Watched] = Counter()
        self._lock = Lock()
        self._done: dict[Watched, tuple[int, Settings]] = {}
        self._due: dict[Watched, float] = {}
        self._thread = Thread(target=self._work, name="page pictures", daemon=True)

    def start(self) -> None:
        """Begin; ends with the board."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the picture under way."""
        self._thread.join(timeout_s)

    @contextmanager
    def watching(self, watched: Watched) -> Iterator[None]:
        """While somebody watches. The first one gets the newest frame at once."""
        with self._lock:
            if not self._watchers[watched]:
                self._done.pop(watched, None)
            self._watchers[watched] += 1
        try:
            yield
        finally:
            with self._lock:
                self._watchers[watched] -= 1
                self._watchers += Counter()  # forgets what nobody watches

    def _work(self) -> None:
        try:
            self._develop_all()
        except Exception as error:  # noqa: BLE001 - whatever it is ends the stage, not only the pictures
            self._board.error = error

    def _develop_all(self) -> None:
        seen = 0
        while not self._board.closed:
            with self._lock:
                watched = list(self._watchers)
            streams = self._board.streams() if watched else {}
            late = [self._develop(w, streams[w[0]].frame, streams[w[0]].changes) for w in watched if w[0] in streams]
            # A view that is not due yet, a newcomer and a changed setting are looked after soon, a frame at once.
            seen = self._board.wait(seen, 0.005 if any(late) else 0.05)

    def _develop(self, watched: Watched, frame: Frame, change: int) -> bool:
        """Draw a view's newest frame, unless that was done; True where it is too early for it."""
        settings, now, interval = self.settings, time.monotonic(), 0.95 / self.quality.max_fps
        if self._done.get(watched) == (change, settings):
            return False
        if now < self._due.get(watched, 0.0):
            return True
        # One interval of slack, so that frames that come unevenly are not skipped.
        self._due[watched] = max(self._due.get(watched, 0.0) + interval, now - interval)
        image = drawn(frame, watched[1], settings, max_width=self.quality.max_width)
        with self._lock:
            self._done[watched] = change, settings
        self.encoded += 1
        self.publish(watched, jpeg(image, self.quality.jpeg))
        return False
