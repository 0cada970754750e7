"""`show`: show the frames in a window on the screen."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Annotated, TypeVar

import cv2
from pydantic import Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import OutputError
from stream_seg.stages.base import STRICT, Context, Frames, Traits
from stream_seg.stages.playback import PACE, STAY, Playback, resolve_pace, resolve_stay
from stream_seg.types import Image

Result = TypeVar("Result")

QUIT_KEYS, PAUSE_KEY = (ord("q"), 27), ord(" ")
"""q and Esc; space."""


@dataclass(config=STRICT)
class Show:
    """Show the frames in a window; space pauses it, and q, Esc or closing it ends the run.

    Every stream has its own window, named `title: stream`. It opens at the size of the image, at most `max_width` wide
    and `max_height` high, and takes the new size if that of the image changes. Resizing it scales the image.
    """

    traits = Traits(role="output", images="drawn", watched=True, argument="the word window")

    title: Annotated[str, Field(min_length=1, description="title of the windows")] = "stream_seg"
    max_width: Annotated[int, Field(ge=64, description="largest width of a window when it opens, pixels")] = 1280
    max_height: Annotated[int, Field(ge=64, description="largest height of a window when it opens, pixels")] = 800
    pace: Annotated[bool | None, Field(description=PACE)] = None
    stay: Annotated[bool | None, Field(description=STAY)] = None

    def __post_init__(self) -> None:
        self._context = Context()

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one other than `window`."""
        return {} if text == "window" else None

    def bind(self, context: Context) -> Show:
        """Return the stage with the context of a graph, and with `pace` and `stay` resolved."""
        bound = replace(self, pace=resolve_pace(self.pace, context), stay=resolve_stay(self.stay, context))
        bound._context = context
        return bound

    def __call__(self, frames: Frames) -> Frames:
        require_display()
        playback, windows = Playback(self._context, pace=bool(self.pace)), Windows((self.max_height, self.max_width))
        try:
            for frame in frames:
                if not playback.hold(frame, poll=windows.poll):
                    return
                windows.show(f"{self.title}: {frame.stream}", frame.image)
                yield frame
                playback.wait_while(windows.is_paused)
                if windows.closed:
                    return
            if self.stay and not self._context.stopping():
                self._context.announce("ended; q in the window or Ctrl-C to quit")
                playback.wait_while(windows.poll)
        finally:
            windows.close()


class Windows:
    """The windows of one stage, and the state that their keys set: `closed`, paused. `limits`: (height, width)."""

    def __init__(self, limits: tuple[int, int]) -> None:
        self.closed = False
        self._paused = False
        self._limits = limits
        self._sizes: dict[str, tuple[int, int]] = {}  # (height, width) of the images, by title

    def show(self, title: str, image: Image) -> None:
        """Show an image in the window of a title, which opens with its first image, and process the keys."""
        size = image.shape[:2]
        if self._sizes.get(title) != size:
            _in_gui_thread(_open, title, fit_size(size, self._limits))
            self._sizes[title] = size
        _in_gui_thread(cv2.imshow, title, image)
        self.poll()

    def poll(self) -> bool:
        """Process the keys and the closing of windows. Return False once the user has asked to quit."""
        if self._sizes and not self.closed:
            key, self.closed = _in_gui_thread(_poll, tuple(self._sizes))
            self._paused ^= key == PAUSE_KEY
        return not self.closed

    def is_paused(self) -> bool:
        """Process the keys. Return True while the user has paused the windows."""
        return self._paused and self.poll() and self._paused

    def close(self) -> None:
        """Close the windows."""
        _in_gui_thread(_close, tuple(self._sizes))


def fit_size(size: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int]:
    """Return a size within the limits with the same ratio of the sides, at most as large; all (height, width)."""
    scale = min(1.0, *(limit / length for limit, length in zip(limits, size, strict=True)))
    height, width = (max(1, round(length * scale)) for length in size)
    return height, width


@cache
def _gui_thread() -> ThreadPoolExecutor:
    """Return the only thread of this process that uses windows: Qt is bound to the thread that used it first."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="windows")


def _in_gui_thread(task: Callable[..., Result], *arguments: object) -> Result:
    try:
        return _gui_thread().submit(task, *arguments).result()
    except cv2.error as error:
        raise OutputError(
            f"cannot show a window: OpenCV reports {error.err!r}; install opencv-python, without the headless package"
        ) from error


def _open(title: str, size: tuple[int, int]) -> None:
    # GUI_NORMAL omits the tool and status bars: OpenCV's wheels lack the fonts for their text, and Qt would warn.
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(title, size[1], size[0])


def _poll(titles: Sequence[str]) -> tuple[int, bool]:
    """Return the key that was pressed, -1 without one, and True if the user pressed a quit key or closed a window."""
    key = cv2.pollKey()
    return key, key in QUIT_KEYS or not all(map(_is_open, titles))


def _is_open(title: str) -> bool:
    try:
        return cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) > 0
    except cv2.error:  # raised by Qt after the user closed the last window
        return False


def _close(titles: Sequence[str]) -> None:
    for title in filter(_is_open, titles):
        cv2.destroyWindow(title)
    if titles:
        cv2.pollKey()  # lets Qt process it


def require_display() -> None:
    """Raise OutputError where Qt would abort or hang the process, and thereby every other output."""
    if not sys.platform.startswith("linux"):
        return
    if next(name for name in list(sys.modules) if name in ("av", "cv2")) == "av":
        # Qt would load PyAV's private libxcb and loop forever: PyAV issue 978, OpenCV issue 29195.
        raise OutputError("cannot show a window: PyAV was imported before OpenCV; import stream_seg or cv2 first")
    if not (display := os.environ.get("DISPLAY")):
        raise OutputError("cannot show a window: DISPLAY is not set; run on a desktop, or write to a file instead")
    try:
        xcb = ctypes.CDLL("libxcb.so.1")  # OpenCV's windows need it as well
    except OSError as error:
        raise OutputError(f"cannot show a window: {error}; install libxcb1, or write to a file instead") from error
    xcb.xcb_connect.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(xcb.xcb_connect(None, None))
    has_error = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    if has_error:
        raise OutputError(f"cannot show a window: the display {display} does not answer; write to a file instead")
