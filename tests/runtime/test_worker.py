"""Figures of one stage: its frame rate while frames come, and after they have stopped."""

from __future__ import annotations

import time
from collections import deque
from types import SimpleNamespace

import pytest

from stream_seg.frame import Frame, Stamp
from stream_seg.stages.base import Frames, Traits
from tests.support.fake_stages import Camera, FunctionStage, Ledger, Work, make_chain, run_graph

SECOND_NS = 10**9


def test_the_frame_rate_falls_to_0_after_two_seconds_of_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = run_graph(make_chain(Camera(30), Work(), Ledger())).workers[0]
    now_ns = time.monotonic_ns()

    def fps_after(seconds: float) -> float:
        clock = SimpleNamespace(monotonic_ns=lambda: now_ns + round(seconds * SECOND_NS))
        monkeypatch.setattr("stream_seg.runtime.worker.time", clock)
        return worker.fps()

    assert fps_after(0) == fps_after(1) > 0
    assert fps_after(2) == fps_after(3600) == 0


def test_the_frame_rate_of_one_frame_is_0() -> None:
    assert run_graph(make_chain(Camera(1), Work(), Ledger())).workers[0].fps() == 0


def test_a_stage_that_takes_frames_ahead_is_measured_by_frame() -> None:
    def hold_two(frames: Frames) -> Frames:
        waiting = deque[Frame]()
        for frame in frames:
            waiting.append(frame)
            if len(waiting) == 3:
                yield waiting.popleft()
        yield from waiting

    taken_ns: list[int] = []
    stamps: list[Stamp] = []

    def note(frames: Frames) -> Frames:
        for frame in frames:
            taken_ns.append(time.monotonic_ns())
            yield frame

    def collect(frames: Frames) -> Frames:
        for frame in frames:
            stamps.append(frame.stamps[1])
            yield frame

    sink = FunctionStage(collect, Traits(role="output"))
    run_graph(make_chain(Camera(6), lambda frames: hold_two(note(frames)), sink))
    assert len(stamps) == 6
    for number, stamp in enumerate(stamps):
        assert stamp.began_ns <= taken_ns[number]
        assert number == 0 or stamp.began_ns >= taken_ns[number - 1]
