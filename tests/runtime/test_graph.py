"""Whole graphs of fake stages: arrival of frames, counts, errors and shutdown."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from threading import Event

import psutil
import pytest

from stream_seg.errors import OutputError, SourceError
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.stopping import FINISH_FRAME_S
from stream_seg.stages.base import Context, Frames, Policy
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config, make_node, run_graph
from tests.support.frames import make_frame
from tests.support.program import wait_until
from tests.support.time_limits import TimeLimit

HANG_S = 60.0
"""Far beyond every time limit."""


def test_every_frame_arrives_in_order() -> None:
    sink = Ledger()
    graph = run_graph(make_chain(Camera(300), Work(), sink))
    assert sink.numbers == list(range(300))
    assert graph.error is None
    for link in graph.link_stats:
        counts = link.counts()
        assert (counts.entered, counts.delivered) == (300, 300)
        assert not any(counts.dropped.values())


def test_latest_drops_frames_and_counts_them() -> None:
    camera, sink = Camera(60, paced=True), Ledger(delay_s=0.08)
    graph = run_graph(make_chain(camera, Work(0.05), sink), policy="latest")
    assert sink.numbers == sorted(set(sink.numbers))
    assert sink.numbers[-1] == 59
    first, second = (link.counts() for link in graph.link_stats)
    assert first.entered == len(camera.sent) == 60
    assert first.dropped["stopped"] == second.dropped["stopped"] == 0
    assert first.dropped["superseded"] + second.dropped["superseded"] == 60 - len(sink.numbers) > 20
    assert second.delivered == len(sink.numbers)


def test_at_most_three_frames_are_in_flight() -> None:
    camera, sink = Camera(45, paced=True), Ledger(delay_s=0.05)
    with Graph(make_config(make_chain(camera, Work(), sink), policy="latest")) as graph:
        while not graph.wait(0.01):
            for link in graph.link_stats:
                assert link.counts().in_flight in range(4)


def test_fan_out_gives_every_frame_to_both_and_makes_images_read_only() -> None:
    left, right = Ledger(), Ledger()
    writeable: list[bool] = []

    def watch(frames: Frames) -> Frames:
        for frame in frames:
            writeable.append(frame.image.flags.writeable)
            yield frame

    nodes = [
        make_node("camera", "source", Camera(50)),
        make_node("watch", "smooth", watch, "camera"),
        make_node("left", "output", left, "watch"),
        make_node("right", "output", right, "camera"),
    ]
    run_graph(nodes)
    assert left.numbers == right.numbers == list(range(50))
    assert writeable == [False] * 50


def test_several_sources_into_one_stage() -> None:
    sink = Ledger()
    nodes = [
        make_node("front", "source", Camera(40, "front")),
        make_node("rear", "source", Camera(60, "rear")),
        make_node("sink", "output", sink, "front", "rear"),
    ]
    run_graph(nodes)
    for stream, frames in (("front", 40), ("rear", 60)):
        assert [seq for name, seq, _ in sink.received if name == stream] == list(range(frames))


def test_the_error_of_an_exception_names_stage_and_frame_and_outputs_finish() -> None:
    sink = Ledger()
    graph = run_graph(make_chain(Camera(100), Work(fails_at=42), sink))
    message = r"stage work failed at frame camera:42: ZeroDivisionError: no way \(.*fake_stages.py, line \d+\)"
    assert re.fullmatch(message, str(graph.error))
    assert sink.numbers == list(range(42))
    assert sink.ended.is_set()


def test_the_frames_before_the_error_of_a_source_arrive() -> None:
    def breaks(_: Frames) -> Frames:
        yield from (make_frame(number) for number in range(10))
        raise SourceError("clip.mp4: the file ends after frame 9")

    sink = Ledger()
    graph = run_graph(make_chain(breaks, Work(), sink))
    assert isinstance(graph.error, SourceError)
    assert sink.numbers == list(range(10))


@pytest.mark.parametrize(("stopped", "seq", "complete"), [(False, 4, True), (False, 3, False), (True, 4, False)])
def test_a_stream_is_complete_with_the_last_frame_of_a_source_that_was_not_stopped(
    stopped: bool, seq: int, complete: bool
) -> None:
    """Outputs tell by this whether an error of the run has cut off a recording."""
    contexts: list[Context] = []

    class Output(Ledger):
        def bind(self, context: Context) -> Output:
            contexts.append(context)
            return self

    def source(_: Frames) -> Frames:
        yield from (make_frame(number) for number in range(5))
        if stopped:
            wait_until(graph.ending)

    sink = Output()
    graph = Graph(make_config(make_chain(source, Work(), sink)))
    with graph:
        wait_until(lambda: len(sink.received) == 5)
        if stopped:
            graph.stop()
        graph.wait(10)
    assert contexts[0].complete("camera", seq) == complete


def test_missed_frames_of_a_source_are_counted() -> None:
    def gaps(_: Frames) -> Generator[Frame, None, dict[str, int]]:
        yield make_frame(0)
        yield replace(make_frame(3), missed={"decode_error": 2})
        return {"decode_error": 1}

    graph = run_graph(make_chain(gaps, Work(), Ledger()))
    assert graph.workers[0].source.missed["decode_error"] == 3


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_stop_finishes_the_outputs(policy: Policy, time_limit: TimeLimit) -> None:
    sink = Ledger(delay_s=0.1)
    graph = Graph(make_config(make_chain(Camera(10_000, paced=True), Work(0.1), sink), policy=policy))
    with ExitStack() as stack:
        stack.enter_context(graph)
        wait_until(lambda: len(sink.received) >= 5)
        with time_limit(2):
            stack.close()
    assert sink.ended.is_set()
    assert graph.done.is_set()
    assert all(link.counts().in_flight == 0 for link in graph.link_stats)


def test_stop_does_not_wait_for_a_source_that_hangs(time_limit: TimeLimit) -> None:
    release = Event()

    def hang(_: Frames) -> Frames:
        yield make_frame(0)
        release.wait(HANG_S)
        yield make_frame(1)

    sink = Ledger()
    with Graph(make_config(make_chain(hang, Work(), sink))) as graph:
        wait_until(lambda: sink.received)
        with time_limit(2):
            graph.stop()
            assert sink.ended.wait(HANG_S)
    assert [worker.node.name for worker in graph.hanging()] == ["camera"]
    release.set()
    graph.hanging()[0].thread.join(5)
    assert sink.numbers == [0]


def test_an_output_that_returns_early_ends_the_run() -> None:
    sink = Ledger(stop_after=3)
    graph = run_graph(make_chain(Camera(10_000, paced=True), Work(), sink))
    assert sink.numbers == [0, 1, 2]
    assert graph.error is None


def test_an_output_that_fails_ends_the_run_although_the_source_hangs() -> None:
    release = Event()

    def hang(_: Frames) -> Frames:
        yield make_frame(0)
        release.wait(HANG_S)

    def fail(frames: Frames) -> Frames:
        for _ in frames:
            wait_until(lambda: other.received)
            raise OutputError("cannot write out.mp4: disk full")
        yield make_frame(0)

    other = Ledger()
    nodes = [
        make_node("camera", "source", hang),
        make_node("fails", "output", fail, "camera"),
        make_node("other", "output", other, "camera"),
    ]
    with Graph(make_config(nodes)) as graph:
        assert graph.wait(HANG_S / 2)
    assert str(graph.error) == "cannot write out.mp4: disk full"
    assert other.numbers == [0]
    assert [worker.node.name for worker in graph.hanging()] == ["camera"]
    release.set()
    graph.hanging()[0].thread.join(5)


def test_stop_does_not_wait_for_an_output_that_hangs(time_limit: TimeLimit) -> None:
    release, reached = Event(), Event()

    def hang(frames: Frames) -> Frames:
        for frame in frames:
            reached.set()
            release.wait(HANG_S)
            yield frame

    graph = Graph(make_config(make_chain(Camera(10, paced=True), Work(), hang)))
    with ExitStack() as stack:
        stack.enter_context(graph)
        assert reached.wait(5)
        with time_limit(2.5):
            stack.close()
    release.set()
    for worker in graph.hanging():
        worker.thread.join(5)


def test_stop_waits_for_an_output_that_finishes_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.runtime.lifecycle.DRAIN_S", 0.1)
    finished = Event()

    def finish_slowly(frames: Frames) -> Frames:
        try:
            yield from frames
        finally:
            time.sleep(0.1 + 2 * FINISH_FRAME_S)
            finished.set()

    with Graph(make_config(make_chain(Camera(10_000, paced=True), Work(), finish_slowly))) as graph:
        wait_until(lambda: graph.workers[-1].yielded >= 3)
    assert finished.is_set()


def test_a_stage_may_return_any_iterator() -> None:
    sink = Ledger()
    graph = run_graph(make_chain(Camera(20), lambda frames: map(replace, frames), sink))
    assert graph.error is None
    assert sink.numbers == list(range(20))


def test_outputs_start_before_sources() -> None:
    started: list[str] = []

    @dataclass
    class Announced:
        name: str
        stage: Camera | Ledger

        def __call__(self, frames: Frames) -> Frames:
            started.append(self.name)
            yield from self.stage(frames)

    camera, sink = Announced("camera", Camera(3)), Announced("sink", Ledger())
    run_graph([make_node("camera", "source", camera), make_node("sink", "output", sink, "camera")])
    assert started == ["sink", "camera"]


def test_a_run_leaves_no_thread_and_no_file_open() -> None:
    run_graph(make_chain(Camera(3), Work(), Ledger()))
    process = psutil.Process()
    threads, files = threading.active_count(), process.num_fds()
    for _ in range(10):
        run_graph(make_chain(Camera(30), Work(), Ledger()))
    assert threading.active_count() == threads
    assert process.num_fds() <= files + 1
