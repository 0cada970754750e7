"""Figures of one stage: its frame rate while frames come, and after they have stopped."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from tests.support.fake_stages import Camera, Ledger, Work, make_chain, run_graph

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
