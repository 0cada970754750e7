"""`show`: show the frames in a window on the screen."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Annotated, TypeVar

import cv2
from pydantic import Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import OutputError
from stream_seg.stages.base import STRICT, Frames, Traits
from stream_seg.types import Image

Result = TypeVar("Result")

QUIT_KEYS = (ord("q"), 27)
"""q and Esc."""


@dataclass(config=STRICT)
class Show:
    """Show the frames in a window; q, Esc or closing it ends the run.

    Every stream has its own window, named `title: stream`. It opens at most `max_width` wide; resizing it scales the
    image. Keys take effect with the next frame.
    """

    traits = Traits(role="output", images="drawn", argument="the word window")

    title: Annotated[str, Field(min_length=1, description="title of the windows")] = "stream_seg"
    max_width: Annotated[int, Field(ge=64, description="largest width of a window when it opens, pixels")] = 1280

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one other than `window`."""
        return {} if text == "window" else None

    def __call__(self, frames: Frames) -> Frames:
        require_display()
        titles: set[str] = set()
        try:
            for frame in frames:
                title = f"{self.title}: {frame.stream}"
                if title not in titles:
                    _in_gui_thread(_open, title, frame.image, self.max_width)
                    titles.add(title)
                is_open = _in_gui_thread(_show, title, frame.image)
                yield frame
                if not is_open:
                    return
        finally:
            _in_gui_thread(_close, titles)


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


def _open(title: str, image: Image, max_width: int) -> None:
    # GUI_NORMAL omits the tool and status bars: OpenCV's wheels lack the fonts for their text, and Qt would warn.
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    height, width = image.shape[:2]
    scale = min(1.0, max_width / width)
    cv2.resizeWindow(title, round(width * scale), max(1, round(height * scale)))


def _show(title: str, image: Image) -> bool:
    """Show an image. Return False if the user pressed a quit key or closed the window."""
    cv2.imshow(title, image)
    return cv2.pollKey() not in QUIT_KEYS and _is_open(title)


def _is_open(title: str) -> bool:
    try:
        return cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) > 0
    except cv2.error:  # raised by Qt after the user closed the last window
        return False


def _close(titles: set[str]) -> None:
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
