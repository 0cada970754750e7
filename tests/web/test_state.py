"""Test the page state: streams that start, stall, expire and are removed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import ConfigError
from stream_seg.frame import Signal, Temporal
from stream_seg.web.schemas import Quality, ViewSettings
from stream_seg.web.state import EXPIRY_S, PageState
from tests.support.frames import make_frame
from tests.support.page_client import make_segmented_frame


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
    state = PageState(lambda: current, clock=clock)
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


def test_a_stream_whose_source_has_ended_is_ended_when_it_falls_silent_and_stays(clock: Clock) -> None:
    ended = set[str]()
    state = PageState(None, ended.__contains__, clock=clock)
    put(state, clock, 0, 1)
    ended.add("front")
    put(state, clock, 2)  # still under way
    assert describe(state) == ("up", None)
    clock.move(3.1)
    assert describe(state) == ("ended", None)
    clock.move(EXPIRY_S + 1)
    assert describe(state) == ("ended", None)


def test_every_stream_ends_with_the_page(state: PageState, clock: Clock) -> None:
    put(state, clock, 0)
    put(state, clock, 1, stream="rear")
    state.end()
    assert {source.id: source.state for source in state.list_sources()} == {"front": "ended", "rear": "ended"}
    assert not state.is_ready()
    clock.move(EXPIRY_S + 1)
    assert len(state.streams()) == 2


def test_the_quality_level_and_its_meaning(state: PageState, clock: Clock) -> None:
    put(state, clock, 0)
    assert state.list_sources()[0].quality is None
    temporal = Temporal(key=False, age=2, quality_level=4, every=5, input_size=(192, 320))
    state.put(replace(make_frame(1, stream="front"), temporal=temporal))
    put(state, clock, 2)  # a placeholder has no quality; the last one stays
    assert state.list_sources()[0].quality == Quality(level=4, every=5, size=(192, 320))
    state.put(replace(make_frame(3, stream="front"), temporal=Temporal(every="auto", input_size=(384, 640))))
    assert state.list_sources()[0].quality == Quality(level=0, every="auto", size=(384, 640))


def test_only_the_named_classes_are_shown_at_first(clock: Clock) -> None:
    state = PageState(shown=["road", "car"], clock=clock)
    state.put(make_segmented_frame(0))
    assert set(CAMVID.names) - set(state.settings.hidden) == {"road", "car"}
    state.settings = ViewSettings(opacity=1, hidden=[])
    state.put(make_segmented_frame(1))  # a viewer has changed them
    assert state.settings.hidden == []
    with pytest.raises(ConfigError, match=r"^serve\.classes: unknown class 'lorry'; the classes are sky"):
        PageState(shown=["lorry"]).put(make_segmented_frame(0))


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
