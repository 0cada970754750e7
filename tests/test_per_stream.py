"""Test frame rates and the counting of lost frames."""

from __future__ import annotations

import pytest

from stream_seg.per_stream import SILENCE_S, FrameRate, LossCounter

SECOND_NS = 1_000_000_000


def make_rate(*times_s: float, window_s: float = 1.0) -> FrameRate:
    """Return the frame rate after frames at these times."""
    rate = FrameRate(window_s)
    for time_s in times_s:
        rate.add(int(time_s * SECOND_NS))
    return rate


def test_the_rate_covers_the_window() -> None:
    slow = [0.2 * k for k in range(10)]
    fast = [2 + 0.04 * k for k in range(40)]
    assert make_rate(*slow, *fast).fps(int(fast[-1] * SECOND_NS)) == pytest.approx(25)


def test_a_rate_below_one_frame_per_window_is_measured_over_two_frames() -> None:
    assert make_rate(0, 1.6, 3.2).fps(int(3.2 * SECOND_NS)) == pytest.approx(1 / 1.6)


def test_the_rate_falls_to_0_after_silence() -> None:
    rate = make_rate(0, 0.1, 0.2)
    last_ns = int(0.2 * SECOND_NS)
    assert rate.fps(last_ns + int(SILENCE_S * SECOND_NS)) == pytest.approx(10)
    assert rate.fps(last_ns + int(SILENCE_S * SECOND_NS) + 1) == 0


def test_there_is_no_rate_before_the_second_frame() -> None:
    assert FrameRate(1.0).fps(0) == 0
    assert make_rate(5).fps(5 * SECOND_NS) == 0
    assert make_rate(5, 5).fps(5 * SECOND_NS) > 0  # no division by zero


def test_gaps_are_losses_and_a_restart_is_none() -> None:
    losses = LossCounter()
    for seq in (7, 8, 10, 15, 0, 1, 3):
        losses.add(seq)
    assert losses.lost == 1 + 4 + 1
