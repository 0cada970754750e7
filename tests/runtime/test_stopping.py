"""Time that a stopped graph waits for each stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from stream_seg.runtime.graph import Graph
from stream_seg.runtime.stopping import _Patience
from stream_seg.runtime.worker import Worker
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config
from tests.support.frames import make_frame


@contextmanager
def running(name: str) -> Iterator[Worker]:
    """Yield the worker of a stage of camera -> work -> sink whose thread runs during the body."""
    graph = Graph(make_config(make_chain(Camera(1), Work(), Ledger())))
    worker = next(worker for worker in graph.workers if worker.node.name == name)
    release = Event()
    worker.thread = Thread(target=release.wait)
    worker.thread.start()
    try:
        yield worker
    finally:
        release.set()
        worker.thread.join()


def patience_s(worker: Worker, *, step_s: float = 0.1) -> float:
    """Return the seconds that a stopped graph waits for a stage which does nothing more, 100 at most."""
    patience = _Patience(worker)
    for step in range(int(100 / step_s)):
        if patience.is_over(1000 + step * step_s, waited_s=step * step_s):
            return step * step_s
    return 100


@pytest.mark.parametrize("name", ["camera", "work", "sink"])
def test_a_stage_at_a_frame(name: str) -> None:
    with running(name) as worker:
        worker.activity.enter("working", make_frame(0))
        assert patience_s(worker) == pytest.approx(0.5)
    assert patience_s(worker) == 0  # its thread has ended


@pytest.mark.parametrize(("name", "limit_s"), [("work", 5), ("sink", 100)])
def test_a_stage_after_its_last_frame(name: str, limit_s: float) -> None:
    """An output gets all the time there is: its file would be incomplete."""
    with running(name) as worker:
        worker.activity.enter("finishing")
        worker.finishing = True
        assert patience_s(worker) == pytest.approx(limit_s)


def test_a_stage_that_loads_or_waits_for_a_camera() -> None:
    with running("camera") as worker:
        worker.activity.enter("loading")
        assert patience_s(worker) == pytest.approx(0.5)
        worker.activity.enter("working")
        worker.activity.expect("waiting for the camera", within_s=60)
        assert patience_s(worker) == pytest.approx(0.5)


def test_a_stage_that_makes_progress_or_waits_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("work") as worker:
        patience = _Patience(worker)
        for number in range(50):
            worker.activity.enter("working", make_frame(number))
            assert not patience.is_over(number * 0.4, waited_s=number * 0.4)
        worker.activity.enter("working", make_frame(50))
        delays = (step * 0.09 for step in range(10_000))  # nine tenths of the time
        monkeypatch.setattr("stream_seg.runtime.stopping.read_cpu_delay_s", lambda _: next(delays))
        assert 4.5 < patience_s(worker) < 5.5
