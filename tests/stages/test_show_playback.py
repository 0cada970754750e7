"""Test the keys, the speed and the size of windows, without a screen and on a clock that only waiting moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.frame import Frame
from stream_seg.stages import playback, show
from stream_seg.stages.base import Context
from stream_seg.stages.show import PAUSE_KEY, QUIT_KEYS, Show, fit_size
from tests.support.frames import RATE, make_frame

WATCHED = Context(recorded=True, only_watched=True)


class Screen:
    """A screen whose user presses `keys`, by the time at which they are pressed. `shown`: time and number of images."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.keys: dict[float, int] = {}
        self.shown: list[tuple[float, int]] = []
        self.sizes: list[tuple[int, int]] = []
        self.closed: tuple[str, ...] = ()

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def run(self, task: Callable[..., Any], *arguments: Any) -> Any:
        """Stand in for the thread that uses windows."""
        if task is show._open:
            self.sizes.append(arguments[1])
        elif task is show._poll:
            due_s = next((time_s for time_s in sorted(self.keys) if time_s <= self.now_s), None)
            key = -1 if due_s is None else self.keys.pop(due_s)
            return key, key in QUIT_KEYS
        elif task is show._close:
            (self.closed,) = arguments
        else:
            assert task is cv2.imshow
            self.shown.append((self.now_s, int(arguments[1][0, 0, 0])))
        return None

    def times(self) -> list[float]:
        return [time_s for time_s, _ in self.shown]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    monkeypatch.setattr(playback, "monotonic", lambda: screen.now_s)
    monkeypatch.setattr(playback, "sleep", screen.sleep)
    monkeypatch.setattr(show, "_in_gui_thread", screen.run)
    monkeypatch.setattr(show, "require_display", lambda: None)
    return screen


def play(frames: int, **context: Any) -> list[Frame]:
    """Show a recording in a window, and return the frames that the stage yielded."""
    return list(Show().bind(replace(WATCHED, **context))(make_frame(seq) for seq in range(frames)))


def test_a_recording_plays_at_its_own_rate(screen: Screen) -> None:
    assert len(play(2 * RATE)) == 2 * RATE
    assert screen.times() == pytest.approx([seq / RATE for seq in range(2 * RATE)])
    assert screen.closed == ("stream_seg: camera",)


def test_with_a_file_beside_it_a_window_shows_frames_as_they_come(screen: Screen) -> None:
    assert len(play(2 * RATE, only_watched=False)) == 2 * RATE
    assert screen.now_s == 0


def test_space_pauses_and_resumes(screen: Screen) -> None:
    screen.keys = {0.5: PAUSE_KEY, 8.0: PAUSE_KEY}
    assert len(play(2 * RATE)) == 2 * RATE
    pauses = [(number, pause_s) for number, pause_s in enumerate(np.diff(screen.times())) if pause_s > 1.1 / RATE]
    assert pauses == [(pytest.approx(RATE / 2, abs=1), pytest.approx(7.5, abs=0.1))]


@pytest.mark.parametrize("keys", [{0.5: ord("q")}, {0.5: 27}, {0.5: PAUSE_KEY, 0.7: ord("q")}])
def test_a_key_ends_the_run_at_once(screen: Screen, keys: dict[float, int]) -> None:
    screen.keys, end_s = keys, max(keys)
    assert len(play(2 * RATE)) == pytest.approx(RATE / 2, abs=2)
    assert screen.now_s == pytest.approx(end_s, abs=0.1)


def test_a_key_ends_the_run_in_a_pause_of_the_recording(screen: Screen) -> None:
    screen.keys = {3.0: ord("q")}
    frames = [make_frame(0), replace(make_frame(1), pts=500, time_base=Fraction(1))]
    assert len(list(Show().bind(WATCHED)(iter(frames)))) == 1
    assert screen.now_s == pytest.approx(3, abs=0.1)


def test_a_window_stays_with_the_last_image_until_q(screen: Screen) -> None:
    messages: list[str] = []
    screen.keys = {100.0: ord("q")}
    assert len(play(10, attended=True, announce=messages.append)) == 10
    assert screen.now_s == pytest.approx(100, abs=0.1)
    assert messages == ["ended; q in the window or Ctrl-C to quit"]
    screen.now_s, ends = 0.0, iter([False] * 40 + [True] * 2)
    play(10, attended=True, stopping=lambda: next(ends))  # Ctrl-C
    assert screen.now_s < 2


def test_a_window_takes_the_size_of_the_image(screen: Screen) -> None:
    frames = [make_frame(0, size=(36, 64)), make_frame(1, size=(36, 64)), make_frame(2, size=(1080, 1920))]
    list(Show()(iter(frames)))  # a placeholder, then the first images of a camera
    assert screen.sizes == [(36, 64), (720, 1280)]


@pytest.mark.parametrize(
    ("size", "fitting"),
    [((1080, 1920), (720, 1280)), ((1920, 1080), (800, 450)), ((90, 160), (90, 160)), ((1, 9000), (1, 1280))],
)
def test_a_window_fits_on_the_screen(size: tuple[int, int], fitting: tuple[int, int]) -> None:
    assert fit_size(size, (800, 1280)) == fitting
