"""The times of a live source's frames: its own distances, whatever its clock and its connections do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest

from stream_seg.sources import timeline as module
from stream_seg.sources.live import News
from stream_seg.sources.picture import Picture
from stream_seg.sources.reader import Taken
from stream_seg.sources.timeline import Line

TICK, STEP = Fraction(1, 90_000), 3000
"""A camera of 30 frames/s."""


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    """One that began at 0 s."""
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: 0)
    return Line("front")


def times(line: Line, pictures: Iterable[tuple[float, float]]) -> list[float]:
    """The times of the frames of one connection, from when its pictures came and what their own clock said."""
    placed = []
    for number, (came_s, own_s) in enumerate(pictures):
        blank = np.zeros((8, 8, 3), np.uint8)
        picture = Picture(blank, round(own_s / TICK), STEP, TICK, round(came_s * 1e9))
        frame = line.frame(News(Taken(picture, Counter()), None, fresh=number == 0))
        placed.append(float(frame.pts * frame.time_base))
    return placed


def steady(came_s: float, own_s: float, count: int) -> list[tuple[float, float]]:
    return [(came_s + number / 30, own_s + number / 30) for number in range(count)]


def burst(came_s: float, own_s: float, count: int) -> list[tuple[float, float]]:
    """What a server kept for a newcomer: all at once."""
    return [(came_s + number / 1000, own_s + number / 30) for number in range(count)]


def test_a_camera_whose_clock_is_steady_is_placed_by_it(line: Line) -> None:
    assert times(line, steady(2, 1000, 90)) == pytest.approx([2 + number / 30 for number in range(90)], abs=1e-4)


def test_pictures_that_come_at_once_are_a_frame_apart_also_after_a_reconnect(line: Line) -> None:
    first = times(line, [*burst(0, 100, 120), *steady(0.2, 104, 300)])
    second = times(line, [*burst(10.6, 7000, 120), *steady(10.8, 7004, 300)])
    steps = np.diff([*first, *second])
    assert steps.min() > 0.9 / 30 - 1e-3  # a little shorter while they are ahead of the clock
    assert steps.max() < 1 / 30 + 1e-3
    long = times(line, steady(21, 7014.2, 1500))
    assert long[-1] == pytest.approx(21 + 1499 / 30, abs=0.3)


@pytest.mark.parametrize("by_s", [0.5, 8.0, 3600.0])
def test_a_clock_that_is_set_back_costs_no_time(line: Line, by_s: float) -> None:
    before, after = steady(0, 5000, 150), steady(5, 5005 - by_s, 450)
    assert np.diff(times(line, [*before, *after])) == pytest.approx(1 / 30, abs=1e-3)


@pytest.mark.parametrize("tick_s", [0.05, 0.1])
def test_a_coarse_clock_does_not_run_away(line: Line, tick_s: float) -> None:
    """Of 25 pictures a second some have the time of the one before."""
    came_s = [number / 25 for number in range(1500)]
    placed_s = times(line, [(at_s, 50 + at_s // tick_s * tick_s) for at_s in came_s])
    assert placed_s == pytest.approx(came_s, abs=tick_s + 1e-3)
    assert (np.diff(placed_s) > 0).all()


def test_a_fast_clock_that_is_set_right_does_not_run_away(line: Line) -> None:
    came_s = [number / 25 for number in range(5000)]
    placed_s = times(line, [(at_s, at_s + 0.03 * (at_s % 10)) for at_s in came_s])  # 0.3 s too far, then back
    assert placed_s == pytest.approx(came_s, abs=0.61)


def test_after_an_outage_the_time_is_that_of_the_wall(line: Line) -> None:
    times(line, steady(0, 100, 30))
    assert times(line, steady(60, 0, 2))[0] == pytest.approx(60)


def test_two_pictures_of_one_time_are_two_frames(line: Line) -> None:
    assert np.all(np.diff(times(line, [(0, 10), (0.03, 10), (0.06, 10.04)])) > 0)
