"""Test the page state: streams that start, stall, expire and are removed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream_seg.frame import Signal
from stream_seg.web.state import EXPIRY_S, PageState
from tests.support.frames import make_frame


class Clock:
    """A clock that only moves by `move`."""

    ns = 10**12

    def __call__(self) -> int:
        return self.ns

    def move(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> PageState:
    return PageState(clock=clock)


def put(state: PageState, clock: Clock, *seqs: int, age_s: float = 0.03, stream: str = "front") -> None:
    for seq in seqs:
        clock.move(0.1)
        state.put(replace(make_frame(seq, stream=stream), captured_ns=clock.ns - round(age_s * 1e9)))


def describe(state: PageState) -> tuple[str, str | None]:
    """Return the state of the first stream and its reason."""
    source = state.list_sources()[0]
    return source.state, source.reason


def test_measurements(state: PageState, clock: Clock) -> None:
    put(state, clock, 0, 1, 2, 5, 6, 10)
    (source,) = state.list_sources()
    assert source.fps == pytest.approx(10)
    assert source.age_ms == pytest.approx(30)
    assert source.dropped == 5
    assert source.seq == 10


def test_a_restarted_source_counts_no_drops(state: PageState, clock: Clock) -> None:
    put(state, clock, 7, 8, 0, 1)
    assert state.list_sources()[0].dropped == 0


def test_a_silent_stream_stalls_recovers_and_expires(state: PageState, clock: Clock) -> None:
    assert not state.is_ready()
    put(state, clock, 0)
    assert state.is_ready()
    clock.move(3.1)
    assert describe(state) == ("stalled", "no frames")
    assert not state.is_ready()
    put(state, clock, 1, stream="rear")
    assert state.is_ready()
    put(state, clock, 2)
    assert describe(state) == ("up", None)
    clock.move(EXPIRY_S + 1)
    assert not state.streams()


def test_a_removed_stream_is_no_longer_listed(clock: Clock) -> None:
    current = {"front", "rear"}
    state = PageState(lambda: current, clock)
    put(state, clock, 0, stream="front")
    put(state, clock, 0, stream="rear")
    assert list(state.streams()) == ["front", "rear"]
    current.remove("rear")
    assert list(state.streams()) == ["front"]
    put(state, clock, 1, stream="rear")  # a frame still in flight
    assert list(state.streams()) == ["front"]
    current.add("rear")
    put(state, clock, 0, stream="rear")
    assert state.streams()["rear"].version == 4


def test_a_placeholder_frame_carries_the_state_of_its_source(state: PageState, clock: Clock) -> None:
    put(state, clock, 0, 1)
    since_ns = clock.ns
    for seq in range(2, 12):
        clock.move(0.5)
        state.put(replace(make_frame(seq, stream="front"), signal=Signal("down", "refused", since_ns)))
    assert describe(state) == ("down", "refused")
    (source,) = state.list_sources()
    assert source.since_s == pytest.approx(5)
    assert source.fps == 0
    assert source.placeholder
    assert not state.is_ready()
    put(state, clock, 12)
    assert not state.list_sources()[0].placeholder
    assert describe(state) == ("up", None)
    assert state.is_ready()


def test_the_history_covers_two_minutes(state: PageState, clock: Clock) -> None:
    for second in range(200):
        put(state, clock, second)
        clock.move(0.9)
        state.sample()
    history = state.streams()["front"].history
    assert len(history) == 120
    assert history[-1][0] - history[0][0] == pytest.approx(119)
    clock.move(2.5)
    state.sample()
    assert history[-1][1].age_ms is None


def test_wait_returns_on_a_frame_and_at_the_end(state: PageState, clock: Clock) -> None:
    put(state, clock, 0)
    assert state.wait(0, 5) == 1
    state.close()
    assert state.wait(1, 5) == 1
