"""A replacement continues the stream of the source that was removed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from stream_seg.frame import Frame
from stream_seg.runtime.handover import Continuation, StreamEnd
from tests.support.frames import make_frame

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
