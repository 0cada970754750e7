"""What the board says of streams that come, stall and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream_seg.frame import Signal
from stream_seg.web import views as facts
from stream_seg.web.state import FORGOTTEN_S, Board
from tests.support.frames import frame


class Clock:
    """Time that stands until it is moved."""

    ns = 10**12

    def __call__(self) -> int:
        return self.ns

    def move(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(clock)


def put(board: Board, clock: Clock, *seqs: int, age_s: float = 0.03, stream: str = "front") -> None:
    for seq in seqs:
        clock.move(0.1)
        board.put(replace(frame(seq, stream=stream), captured_ns=clock.ns - round(age_s * 1e9)))


def test_figures(board: Board, clock: Clock) -> None:
    put(board, clock, 0, 1, 2, 5, 6, 10)
    reading = board.streams()["front"].reading(clock.ns)
    assert reading.fps == pytest.approx(10)
    assert reading.age_ms == pytest.approx(30)
    assert reading.dropped == 5
    assert board.streams()["front"].frame.seq == 10


def test_a_source_that_starts_anew_drops_nothing(board: Board, clock: Clock) -> None:
    put(board, clock, 7, 8, 0, 1)
    assert board.streams()["front"].reading(clock.ns).dropped == 0


def test_a_silent_stream_is_stalled_then_up_again_then_forgotten(board: Board, clock: Clock) -> None:
    assert not board.ready()
    put(board, clock, 0)
    assert board.ready()
    clock.move(3.1)
    assert board.streams()["front"].state(clock.ns) == ("stalled", "no frames")
    assert not board.ready()
    put(board, clock, 1, stream="rear")
    assert board.ready()
    put(board, clock, 2)
    assert board.streams()["front"].state(clock.ns) == ("up", None)
    clock.move(FORGOTTEN_S + 1)
    assert not board.streams()


def test_a_stream_that_the_pipeline_no_longer_has_is_gone_at_once(clock: Clock) -> None:
    kept = {"front", "rear"}
    board = Board(clock, kept=lambda: kept)
    put(board, clock, 0, stream="front")
    put(board, clock, 0, stream="rear")
    assert list(board.streams()) == ["front", "rear"]
    kept.remove("rear")
    assert list(board.streams()) == ["front"]
    put(board, clock, 1, stream="rear")  # was still under way
    assert list(board.streams()) == ["front"]
    kept.add("rear")
    put(board, clock, 0, stream="rear")
    assert board.streams()["rear"].changes == 4


def test_a_card_says_what_the_source_says(board: Board, clock: Clock) -> None:
    put(board, clock, 0, 1)
    since_ns = clock.ns
    for seq in range(2, 12):
        clock.move(0.5)
        board.put(replace(frame(seq, stream="front"), signal=Signal("down", "refused", since_ns)))
    stream = board.streams()["front"]
    assert stream.state(clock.ns) == ("down", "refused")
    assert stream.silent_s(clock.ns) == pytest.approx(5)
    assert stream.reading(clock.ns).fps == 0
    assert not board.ready()
    assert [source.card for source in facts.sources(board)] == [True]
    put(board, clock, 12)
    assert [source.card for source in facts.sources(board)] == [False]
    assert stream.state(clock.ns) == ("up", None)
    assert board.ready()


def test_the_charts_have_a_past(board: Board, clock: Clock) -> None:
    for second in range(200):
        put(board, clock, second)
        clock.move(0.9)
        board.sample()
    history = board.streams()["front"].history
    assert len(history) == 120
    assert history[-1][0] - history[0][0] == pytest.approx(119)
    clock.move(2.5)
    board.sample()
    assert history[-1][1].age_ms is None


def test_a_waiter_is_woken(board: Board, clock: Clock) -> None:
    put(board, clock, 0)
    assert board.wait(0, 5) == 1
    board.close()
    assert board.wait(1, 5) == 1
