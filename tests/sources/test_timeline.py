"""Clocks of a stream: its times only grow, whatever the clock and the connections of its source do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from stream_seg.frame import Frame
from stream_seg.sources.timeline import (
    GAP_S,
    LEAP_S,
    Continuation,
    LiveClock,
    Pacer,
    StreamClock,
    StreamEnd,
    discontinuity,
)
from tests.support.frames import make_frame

MS = Fraction(1, 1000)
TICK, STEP = Fraction(1, 90_000), 3000
"""A camera at 30 frames/s."""


def place(clock: StreamClock, times_ms: Iterable[int | None], *, missed: int = 0) -> list[int]:
    """Place frames that are usually 40 ms apart; times in ms."""
    interval_s = 40 * MS * (1 + missed)
    return [clock.place(None if ms is None else ms * MS, MS, interval_s=interval_s) for ms in times_ms]


@pytest.mark.parametrize(
    ("times_ms", "expected"),
    [
        ([700, 740, 790], [700, 740, 790]),
        ([-2000, -1960], [-2000, -1960]),
        ([700, 700, 699, 740], [700, 701, 702, 740]),
        ([None, None, 90], [0, 40, 90]),
        ([700, None, 800, None], [700, 740, 800, 840]),
        ([5000, 5040, 0, 40, 90], [5000, 5040, 5080, 5120, 5170]),
        ([5000, 4000, 5040], [5000, 5001, 5040]),
        ([5000, 3999, 4039], [5000, 5040, 5080]),
        ([0, 40, 600_040, 600_080], [0, 40, 600_040, 600_080]),
        ([0, 40, 600_041, 600_081], [0, 40, 80, 120]),
        ([100_000, 100_040, 0, 100_120, 100_160], [100_000, 100_040, 100_080, 100_120, 100_160]),
        ([100_000, 100_040, 9_000_000, 100_120, 100_160], [100_000, 100_040, 100_080, 100_120, 100_160]),
        ([5000, 5040, 4039, None, 900, 940, -100], [5000, 5040, 5080, 5120, 5160, 5200, 5240]),
    ],
    ids=[
        "a steady clock",
        "a clock that begins below 0",
        "equal times and a small step back",
        "no times at first",
        "missing times",
        "a jump back",
        "a step back of 1 s is no restart",
        "a step back of more is one",
        "a pause of 600 s is no leap",
        "a leap ahead",
        "a single time too small",
        "a single time too large",
        "one restart after another",
    ],
)
def test_the_times_of_a_stream_only_grow(times_ms: list[int | None], expected: list[int]) -> None:
    assert place(StreamClock(leap_s=LEAP_S), times_ms) == expected


def test_a_recording_may_pause_for_any_time() -> None:
    assert place(StreamClock(), [0, 40, 9_000_000, 9_000_040]) == [0, 40, 9_000_000, 9_000_040]


def test_frames_that_are_missing_before_a_restart_take_their_time() -> None:
    clock = StreamClock()
    place(clock, [700])
    assert place(clock, [None], missed=2) == [820]
    assert place(clock, [-5000], missed=1) == [900]


def test_without_an_interval_a_frame_comes_one_tick_after_the_last() -> None:
    clock = StreamClock()
    assert [clock.place(time_s, MS) for time_s in (Fraction(7), None, Fraction(0))] == [7000, 7001, 7002]


def test_a_clock_can_be_restarted_at_any_time_and_its_ticks_may_change() -> None:
    clock = StreamClock()
    clock.restart(Fraction(90), at_s=0)
    assert clock.place(Fraction(90), MS) == 0
    assert clock.place(Fraction(9004, 100), TICK) == 3600
    assert clock.place(Fraction(9004, 100), MS) == 41
    assert clock.last_s == 41 * MS


@pytest.mark.parametrize(
    ("step_s", "expected"), [(-1, "back"), (0, "back"), (0.04, None), (GAP_S, None), (GAP_S + 0.01, "gap")]
)
def test_a_frame_continues_the_last_one_or_says_why_not(step_s: float, expected: str | None) -> None:
    assert discontinuity(Fraction(step_s)) == expected
    assert discontinuity(Fraction(2), gap_s=2) is None


def test_a_frame_is_due_as_far_behind_the_last_as_its_time() -> None:
    pacer = Pacer()
    assert [pacer.due_s(time_s, 100, longest_s=600) for time_s in (7, 7.5, 607.5)] == [100, 100.5, 700.5]


def test_a_late_frame_is_due_at_once_and_the_next_ones_make_up_for_the_slack() -> None:
    strict, lenient = Pacer(), Pacer(slack_s=1)
    wall_s = [(0, 0.0), (1, 5.0), (2, 5.0), (3, 5.0)]
    assert [strict.due_s(time_s, now_s, longest_s=600) for time_s, now_s in wall_s] == [0, 5, 6, 7]
    assert [lenient.due_s(time_s, now_s, longest_s=600) for time_s, now_s in wall_s] == [0, 4, 5, 6]


@pytest.mark.parametrize("jump", [[10, 9, 9.5], [10, 700, 700.5], [10, None, 10.7], [10, 10, 10.5]])
def test_a_jump_of_the_clock_takes_the_usual_interval(jump: list[float | None]) -> None:
    pacer = Pacer()
    due_s = [pacer.due_s(time_s, 0, longest_s=2, interval_s=0.2) for time_s in jump]
    assert due_s == pytest.approx([0.2, 0.4, 0.9])
    pacer = Pacer()
    assert [pacer.due_s(time_s, 0, longest_s=2) for time_s in jump][1] == 0
    assert Pacer().due_s(None, 0, longest_s=2, interval_s=30) == 2


@pytest.fixture
def clock() -> LiveClock:
    return LiveClock()


def live_times(clock: LiveClock, frames: Iterable[tuple[float, float]]) -> list[float]:
    """Return the times of the frames of one connection, from (arrival, time of the source) in seconds."""
    times = []
    for number, (arrival_s, source_s) in enumerate(frames):
        pts = clock.place(
            round(source_s / TICK) * TICK,
            TICK,
            elapsed_s=Fraction(round(arrival_s * 1e9), 10**9),
            interval_s=STEP * TICK,
            connected=number == 0,
        )
        times.append(float(pts * TICK))
    return times


def steady(arrival_s: float, source_s: float, count: int) -> list[tuple[float, float]]:
    return [(arrival_s + number / 30, source_s + number / 30) for number in range(count)]


def burst(arrival_s: float, source_s: float, count: int) -> list[tuple[float, float]]:
    """Return frames that a server buffered for a new client: they arrive at once."""
    return [(arrival_s + number / 1000, source_s + number / 30) for number in range(count)]


def test_a_camera_whose_clock_is_steady_is_placed_by_it(clock: LiveClock) -> None:
    assert live_times(clock, steady(2, 1000, 90)) == pytest.approx([2 + number / 30 for number in range(90)], abs=1e-4)


def test_frames_that_arrive_at_once_are_one_interval_apart_also_after_a_reconnect(clock: LiveClock) -> None:
    first = live_times(clock, [*burst(0, 100, 120), *steady(0.2, 104, 300)])
    second = live_times(clock, [*burst(10.6, 7000, 120), *steady(10.8, 7004, 300)])
    steps = np.diff([*first, *second])
    assert steps.min() > 0.9 / 30 - 1e-3  # a little shorter while they lead the wall clock
    assert steps.max() < 1 / 30 + 1e-3
    long = live_times(clock, steady(21, 7014.2, 1500))
    assert long[-1] == pytest.approx(21 + 1499 / 30, abs=0.3)


@pytest.mark.parametrize("by_s", [0.5, 8.0, 3600.0])
def test_a_clock_that_is_set_back_costs_no_time(clock: LiveClock, by_s: float) -> None:
    before, after = steady(0, 5000, 150), steady(5, 5005 - by_s, 450)
    assert np.diff(live_times(clock, [*before, *after])) == pytest.approx(1 / 30, abs=1e-3)


@pytest.mark.parametrize("tick_s", [0.05, 0.1])
def test_a_coarse_clock_does_not_run_away(clock: LiveClock, tick_s: float) -> None:
    """Of 25 frames a second some have the time of the one before."""
    arrivals_s = [number / 25 for number in range(1500)]
    times_s = live_times(clock, [(at_s, 50 + at_s // tick_s * tick_s) for at_s in arrivals_s])
    assert times_s == pytest.approx(arrivals_s, abs=tick_s + 1e-3)
    assert (np.diff(times_s) > 0).all()


def test_a_fast_clock_that_is_corrected_again_and_again_does_not_run_away(clock: LiveClock) -> None:
    arrivals_s = [number / 25 for number in range(5000)]
    times_s = live_times(clock, [(at_s, at_s + 0.03 * (at_s % 10)) for at_s in arrivals_s])  # 0.3 s too far, then back
    assert times_s == pytest.approx(arrivals_s, abs=0.61)


def test_after_an_outage_the_time_is_that_of_the_wall_clock(clock: LiveClock) -> None:
    live_times(clock, steady(0, 100, 30))
    assert live_times(clock, steady(60, 0, 2))[0] == pytest.approx(60)


def test_two_live_frames_of_one_time_are_placed_one_after_the_other(clock: LiveClock) -> None:
    assert np.all(np.diff(live_times(clock, [(0, 10), (0.03, 10), (0.06, 10.04)])) > 0)


def test_live_frames_without_a_time_have_that_of_their_arrival(clock: LiveClock) -> None:
    arrivals_s = [Fraction(second) for second in (0, 2, 2, 1, 3)]
    placed = [clock.place(None, MS, elapsed_s=at_s, interval_s=MS, connected=False) for at_s in arrivals_s]
    assert placed == [0, 2000, 2001, 2002, 3000]


SECOND_NS = 10**9


def captured(seq: int, pts: int, rate: int, at_s: float) -> Frame:
    return replace(make_frame(seq), pts=pts, time_base=Fraction(1, rate), captured_ns=round(at_s * SECOND_NS))


def test_the_time_from_the_last_frame_to_the_replacement_passes_in_the_stream_too() -> None:
    continuation = Continuation(StreamEnd(9, Fraction(10), 100 * SECOND_NS))
    placed = [continuation.place(captured(seq, 7000 + seq, 1000, 103.5 + seq / 1000)) for seq in range(3)]
    assert [frame.seq for frame in placed] == [10, 11, 12]
    assert [frame.pts * frame.time_base for frame in placed] == [Fraction(13_500 + ms, 1000) for ms in range(3)]


def test_a_replacement_that_comes_at_once_does_not_repeat_a_time() -> None:
    continuation = Continuation(StreamEnd(0, Fraction(10), 100 * SECOND_NS))
    placed = [continuation.place(captured(seq, seq, 25, 100.0 + seq / 25)) for seq in range(3)]
    assert [frame.pts for frame in placed] == [251, 252, 253]


def test_a_gap_within_the_replacement_is_kept() -> None:
    continuation = Continuation(StreamEnd(9, Fraction(10), 0))
    first, second = (continuation.place(captured(seq, pts, 1000, 2)) for seq, pts in ((0, 0), (5, 900_000)))
    assert (second.seq - first.seq, second.pts - first.pts) == (5, 900_000)


def test_time_does_not_go_back_between_a_placeholder_and_the_image_after_it() -> None:
    """Their ticks differ, 1/1000 s and 1/90000 s, and times are rounded to whole ones."""
    continuation, times = Continuation(StreamEnd(9, Fraction(73_331, 10_000), 0)), [Fraction(73_331, 10_000)]
    for number, (pts, rate) in enumerate([(1000, 1000), (90_009, 90_000), (1001, 1000), (90_095, 90_000)]):
        placed = continuation.place(captured(number, pts, rate, number / SECOND_NS))
        assert placed.seq == 10 + number
        times.append(placed.pts * placed.time_base)
    assert all(after > before for before, after in pairwise(times))
