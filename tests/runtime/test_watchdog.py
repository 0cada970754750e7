"""Stages that make no progress are found, and named with what they do; nothing else is."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import pytest

from stream_seg.api.pipeline import Pipeline
from stream_seg.config.document import WatchdogConfig
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.watchdog import read_cpu_delay_s
from stream_seg.runtime.worker import Worker
from stream_seg.stages.base import Context, Frames, Traits
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config, run_graph
from tests.support.frames import make_frame
from tests.support.program import wait_until

STALL_S = 8.0


class Clock:
    """A clock for the watchdog of a graph: each step of at most a second is followed by a check."""

    def __init__(self, graph: Graph) -> None:
        self._watchdog, self._now_s = graph.watchdog, time.monotonic()
        self._begin_s = self._now_s
        self._watchdog.check(self._now_s)

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return self._now_s - self._begin_s

    def advance(self, seconds: float) -> list[str]:
        """Let time pass, and return the stages that are stalled then."""
        for _ in range(round(2 * seconds)):
            self._now_s += 0.5
            self._watchdog.check(self._now_s)
        return [str(stall) for stall in self._watchdog.stalls.values()]

    def jump(self, seconds: float) -> list[str]:
        """Let time pass without a check, as in a process that is stopped; then check once."""
        self._now_s += seconds
        self._watchdog.check(self._now_s)
        return [str(stall) for stall in self._watchdog.stalls.values()]


@pytest.fixture
def graph() -> Graph:
    """camera -> work -> sink, not started: the camera waits for a trigger, and the tests set what the others do."""
    graph = Graph(make_config(make_chain(Camera(1), Work(), Ledger())))
    for worker in graph.workers:
        worker.activity.enter("waiting")
    find_worker(graph, "camera").activity.enter("working")
    find_worker(graph, "camera").activity.expect("waiting for a trigger", within_s=1e9)
    return graph


def find_worker(graph: Graph, name: str) -> Worker:
    return next(worker for worker in graph.workers if worker.node.name == name)


def test_a_stage_on_a_frame_is_stalled_after_eight_seconds(graph: Graph, caplog: pytest.LogCaptureFixture) -> None:
    work, clock = find_worker(graph, "work"), Clock(graph)
    work.activity.enter("working", make_frame(7))
    assert clock.advance(STALL_S) == []
    assert clock.advance(0.5) == ["stage work makes no progress: at frame camera:7 for 8 s"]
    clock.advance(60)
    assert caplog.messages == ["stage work makes no progress: at frame camera:7 for 8 s"]  # said once
    work.activity.enter("blocked", make_frame(7), place="after")
    assert clock.advance(30) == []
    assert caplog.messages[1:] == ["stage work makes progress again, after 68 s"]


def test_frames_that_arrive_are_progress(graph: Graph) -> None:
    work, clock = find_worker(graph, "work"), Clock(graph)
    for number in range(20):
        work.activity.enter("working", make_frame(number))
        assert clock.advance(STALL_S - 1) == []


@pytest.mark.parametrize("state", ["waiting", "blocked", "new", "ended"])
def test_a_stage_that_waits_for_others_is_not_stalled(graph: Graph, state: str) -> None:
    find_worker(graph, "work").activity.state = state  # type: ignore[assignment]
    assert Clock(graph).advance(3600) == []


def test_a_stage_that_hangs_while_it_loads_or_finishes(graph: Graph) -> None:
    work, sink, clock = find_worker(graph, "work"), find_worker(graph, "sink"), Clock(graph)
    work.activity.enter("loading")
    sink.activity.enter("finishing")
    assert clock.advance(9) == ["stage work makes no progress: loading for 8 s"]
    assert "stage sink makes no progress: finishing for 68 s" in clock.advance(60)


def test_a_stage_gets_the_time_that_it_asks_for(graph: Graph, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    work, clock = find_worker(graph, "work"), Clock(graph)
    work.activity.enter("loading")
    work.activity.expect("building an engine", within_s=600)
    caplog.clear()
    assert clock.advance(607) == []
    assert "stage work: building an engine for 8 s" in caplog.messages
    assert clock.advance(2) == ["stage work makes no progress: building an engine for 608 s"]
    work.activity.expect("building an engine", within_s=600)  # a sign of progress
    assert clock.advance(607) == []


def test_the_time_asked_for_ends_with_the_next_frame(graph: Graph) -> None:
    work, clock = find_worker(graph, "work"), Clock(graph)
    work.activity.enter("working", make_frame(0))
    work.activity.expect("building an engine", within_s=600)
    work.activity.enter("working", make_frame(1))
    assert clock.advance(9) == ["stage work makes no progress: at frame camera:1 for 8 s"]


def test_a_stage_whose_frames_take_long_gets_ten_times_as_long(graph: Graph) -> None:
    work, clock = find_worker(graph, "work"), Clock(graph)
    for duration_ms in (4000, 6000):
        work.duration_ms.add(duration_ms)
    work.activity.enter("working", make_frame(2))
    assert clock.advance(49) == []
    assert clock.advance(2) == ["stage work makes no progress: at frame camera:2 for 50 s"]


def test_a_process_that_was_stopped_has_no_stalled_stage(graph: Graph) -> None:
    """As by SIGSTOP, a debugger, or a machine that is far too busy: no stage could run."""
    work, clock = find_worker(graph, "work"), Clock(graph)
    work.activity.enter("working", make_frame(0))
    assert clock.jump(10_000) == []
    assert clock.jump(10_000) == []
    assert clock.advance(9) != []


def test_time_without_a_cpu_does_not_count(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine: the thread could run, and other programs have the CPU three quarters of the time."""
    work, clock = find_worker(graph, "work"), Clock(graph)
    work.activity.enter("working", make_frame(0))
    monkeypatch.setattr("stream_seg.runtime.watchdog.read_cpu_delay_s", lambda _: clock.seconds * 0.75)
    assert clock.advance(30) == []
    assert clock.advance(4) == ["stage work makes no progress: at frame camera:0 for 8 s"]


def test_the_cpu_delay_of_a_thread_is_known() -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the system has no statistics of its scheduler")
    cpus = os.sched_getaffinity(0)
    delays: dict[int, float] = {}

    def spin(number: int) -> None:
        os.sched_setaffinity(0, {min(cpus)})  # of this thread
        end_s = time.thread_time() + 0.05
        while time.thread_time() < end_s:
            hashlib.sha256(bytes(1_000_000))  # without the GIL
        delays[number] = read_cpu_delay_s(threading.current_thread())

    threads = [Thread(target=spin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(delays.values()) > 0.02  # three others had the CPU first
    assert read_cpu_delay_s(Thread()) == 0


def test_the_clock_stands_still_while_numba_compiles(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    work, clock = find_worker(graph, "work"), Clock(graph)
    work.activity.enter("working", make_frame(0))
    monkeypatch.setattr("stream_seg.runtime.watchdog.is_compiling", lambda: True)
    assert clock.advance(120) == []
    monkeypatch.setattr("stream_seg.runtime.watchdog.is_compiling", lambda: False)
    assert clock.advance(9) != []


def test_a_graph_is_blocked_if_no_output_goes_on(graph: Graph) -> None:
    """Then the service is started again; while an output goes on, it is not."""
    work, sink, clock = find_worker(graph, "work"), find_worker(graph, "sink"), Clock(graph)
    clock.advance(60)
    assert not graph.watchdog.blocked
    work.activity.enter("working", make_frame(0))
    for _ in range(20):
        clock.advance(1)
        sink.activity.enter("waiting")
    assert graph.stalls()
    assert not graph.watchdog.blocked
    clock.advance(9)
    assert graph.watchdog.blocked
    work.activity.enter("waiting")
    clock.advance(1)
    assert not graph.watchdog.blocked


def test_a_slow_iterator_is_no_hang() -> None:
    document = {"stages": {"synthetic": {"width": 96, "height": 64, "frames": 5}}}
    with Pipeline(document, frames="synthetic") as pipeline:
        frames = iter(pipeline)
        next(frames)
        tap = pipeline.graph.workers[-1].activity
        wait_until(lambda: str(tap) == "waiting for the iterator")
        wait_until(lambda: pipeline.graph.workers[0].activity.state != "loading")
        pipeline.graph.watchdog.stop()
        assert Clock(pipeline.graph).advance(3600) == []
        assert len(list(frames)) == 4


def test_if_all_stages_wait_for_each_other_a_link_has_lost_a_frame(graph: Graph) -> None:
    find_worker(graph, "camera").activity.enter("blocked", make_frame(4), place="after")
    stalled = Clock(graph).advance(9)
    assert "stage camera makes no progress: after frame camera:4 for 9 s" in stalled
    assert "stage work makes no progress: waiting for 9 s" in stalled


def test_the_activity_of_real_stages() -> None:
    """Camera, filter and output in every state that a run has."""
    release, seen = Event(), dict[str, list[str]]()

    def note(moment: str) -> None:
        seen[moment] = [f"{worker.activity.state}: {worker.activity}" for worker in graph.workers]

    def camera(_: Frames) -> Frames:
        yield from (make_frame(number) for number in range(9))
        release.wait(60)

    def work(frames: Frames) -> Frames:
        note("loading")
        for frame in frames:
            if frame.seq == 2:
                wait_until(lambda: graph.workers[0].activity.state == "blocked")
                wait_until(lambda: graph.workers[2].activity.state == "waiting")
                note("at a frame")
            yield frame
            if frame.seq == 2:
                wait_until(lambda: graph.workers[2].yielded == 3)
                note("after a frame")
        note("finishing")

    graph = Graph(make_config(make_chain(camera, work, Ledger())))
    note("new")
    with graph:
        wait_until(lambda: graph.workers[2].yielded == 9)
        wait_until(lambda: all(worker.activity.state == "waiting" for worker in graph.workers[1:]))
        note("no input")
        release.set()
        assert graph.wait(30)
    assert seen["new"] == ["new: "] * 3
    assert seen["loading"][1] == "loading: loading"
    assert seen["at a frame"][1] == "working: at frame camera:2"
    assert seen["after a frame"][1] == "working: after frame camera:2"
    assert seen["no input"] == ["working: after frame camera:8", "waiting: waiting", "waiting: waiting"]
    assert seen["finishing"][1] == "finishing: finishing"
    assert [worker.activity.state for worker in graph.workers] == ["ended"] * 3


@contextmanager
def running(work: object, *, stall_s: float) -> Iterator[Graph]:
    """Run camera -> work -> sink with a watchdog that is quick; `work` may hang."""
    config = make_config(make_chain(Camera(1_000_000, paced=True), work, Ledger()))  # type: ignore[arg-type]
    with Graph(replace(config, watchdog=WatchdogConfig(stall_s=stall_s))) as graph:
        yield graph


def test_a_graph_finds_a_stage_that_hangs_and_its_recovery(caplog: pytest.LogCaptureFixture) -> None:
    release = Event()

    def hang(frames: Frames) -> Frames:
        for frame in frames:
            if frame.seq == 3:
                release.wait(60)
            yield frame

    with running(hang, stall_s=0.1) as graph:
        wait_until(graph.stalls)
        assert [line.rpartition(" for ")[0] for line in graph.stalls()] == [
            "stage work makes no progress: at frame camera:3"
        ]
        release.set()
        wait_until(lambda: not graph.stalls())
    assert len(caplog.messages) == 2
    assert not graph.abandoned()


def test_a_stage_tells_the_watchdog_through_its_context() -> None:
    @dataclass
    class Slow:
        traits: ClassVar = Traits()
        context: Context = field(default_factory=Context)

        def bind(self, context: Context) -> Slow:
            return Slow(context)

        def __call__(self, frames: Frames) -> Frames:
            self.context.busy("warming up", within_s=100)
            reached.set()
            release.wait(60)
            yield from frames

    reached, release = Event(), Event()
    with running(Slow(), stall_s=0.1) as graph:
        assert reached.wait(30)
        activity = graph.workers[1].activity
        assert (str(activity), activity.within_s) == ("warming up", 100)
        release.set()
        wait_until(lambda: graph.workers[2].yielded)
        assert activity.within_s == 0


def test_a_graph_without_hangs_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    graph = run_graph(make_chain(Camera(300), Work(), Ledger()))
    assert (graph.stalls(), graph.abandoned(), caplog.messages) == ([], [], [])
