"""Whole graphs of stand-in stages: what arrives, what is counted, how they end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from threading import Event

import psutil
import pytest

from stream_seg.errors import OutputError, SourceError
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config, make_node, run_graph
from tests.support.frames import make_frame


def test_numbered_frames_in_the_same_numbers_out() -> None:
    sink = Ledger()
    graph = run_graph(make_chain(Camera(300), Work(), sink))
    assert sink.numbers == list(range(300))
    assert graph.error is None
    for link in graph.link_stats:
        account = link.counts()
        assert (account.entered, account.delivered) == (300, 300)
        assert not any(account.dropped.values())


def test_latest_balances_against_the_ledger() -> None:
    camera, sink = Camera(60, paced=True), Ledger(delay_s=0.08)
    graph = run_graph(make_chain(camera, Work(0.05), sink), policy="latest")
    assert sink.numbers == sorted(set(sink.numbers))
    assert sink.numbers[-1] == 59
    first, second = (link.counts() for link in graph.link_stats)
    assert first.entered == len(camera.sent) == 60
    assert first.dropped["stopped"] == second.dropped["stopped"] == 0
    assert first.dropped["superseded"] + second.dropped["superseded"] == 60 - len(sink.numbers) > 20
    assert second.delivered == len(sink.numbers)


def test_books_balance_while_it_runs() -> None:
    camera, sink = Camera(45, paced=True), Ledger(delay_s=0.05)
    with Graph(make_config(make_chain(camera, Work(), sink), policy="latest")) as graph:
        while not graph.wait(0.01):
            for link in graph.link_stats:
                assert link.counts().in_flight in range(4)


def test_fan_out_gives_every_frame_to_both_and_protects_the_picture() -> None:
    left, right = Ledger(), Ledger()
    seen: list[bool] = []

    def watch(frames: Frames) -> Frames:
        for taken in frames:
            seen.append(taken.image.flags.writeable)
            yield taken

    nodes = [
        make_node("camera", "source", Camera(50)),
        make_node("watch", "smooth", watch, "camera"),
        make_node("left", "output", left, "watch"),
        make_node("right", "output", right, "camera"),
    ]
    run_graph(nodes)
    assert left.numbers == right.numbers == list(range(50))
    assert seen == [False] * 50


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


def test_an_exception_names_stage_and_frame_and_outputs_are_finished() -> None:
    sink = Ledger()
    graph = run_graph(make_chain(Camera(100), Work(fails_at=42), sink))
    message = r"stage work failed at frame camera:42: ZeroDivisionError: no way \(.*fake_stages.py, line \d+\)"
    assert re.fullmatch(message, str(graph.error))
    assert sink.numbers == list(range(42))
    assert sink.ended.is_set()


def test_the_frames_before_a_broken_source_arrive() -> None:
    def breaks(_: Frames) -> Frames:
        yield from (make_frame(number) for number in range(10))
        raise SourceError("clip.mp4: breaks off after frame 9")

    sink = Ledger()
    graph = run_graph(make_chain(breaks, Work(), sink))
    assert isinstance(graph.error, SourceError)
    assert sink.numbers == list(range(10))


def test_frames_that_a_source_missed_are_counted() -> None:
    def gaps(_: Frames) -> Generator[Frame, None, dict[str, int]]:
        yield make_frame(0)
        yield replace(make_frame(3), missed={"decode_error": 2})
        return {"decode_error": 1}

    graph = run_graph(make_chain(gaps, Work(), Ledger()))
    assert graph.workers[0].source.missed["decode_error"] == 3


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_stop_finishes_the_outputs_within_two_seconds(policy: str) -> None:
    sink = Ledger(delay_s=0.1)
    with Graph(make_config(make_chain(Camera(10_000, paced=True), Work(0.1), sink), policy=policy)) as graph:  # type: ignore[arg-type]
        while len(sink.received) < 5:
            assert not graph.wait(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert sink.ended.is_set()
    assert graph.done.is_set()
    assert all(link.counts().in_flight == 0 for link in graph.link_stats)


def test_a_source_that_hangs_does_not_hold_up_the_stop() -> None:
    release = Event()

    def hangs(_: Frames) -> Frames:
        yield make_frame(0)
        release.wait(30)
        yield make_frame(1)

    sink = Ledger()
    with Graph(make_config(make_chain(hangs, Work(), sink))) as graph:
        while not sink.received:
            graph.wait(0.01)
        began = time.monotonic()
        graph.stop()
        assert sink.ended.wait(2)
    assert time.monotonic() - began < 2
    assert [task.node.name for task in graph.hanging()] == ["camera"]
    release.set()
    graph.hanging()[0].thread.join(5)
    assert sink.numbers == [0]


def test_an_output_that_leaves_ends_the_run() -> None:
    sink = Ledger(stop_after=3)
    graph = run_graph(make_chain(Camera(10_000, paced=True), Work(), sink))
    assert sink.numbers == [0, 1, 2]
    assert graph.error is None


def test_an_output_that_fails_ends_the_run_although_the_source_hangs() -> None:
    release = Event()

    def hangs(_: Frames) -> Frames:
        yield make_frame(0)
        release.wait(30)

    def fails(frames: Frames) -> Frames:
        for _ in frames:
            raise OutputError("cannot write out.mp4: disk full")
        yield make_frame(0)

    other = Ledger()
    nodes = [
        make_node("camera", "source", hangs),
        make_node("fails", "output", fails, "camera"),
        make_node("other", "output", other, "camera"),
    ]
    with Graph(make_config(nodes)) as graph:
        assert graph.wait(5)
    assert str(graph.error) == "cannot write out.mp4: disk full"
    assert other.numbers == [0]
    assert [task.node.name for task in graph.hanging()] == ["camera"]
    release.set()
    graph.hanging()[0].thread.join(5)


def test_an_output_that_hangs_does_not_hold_up_the_stop() -> None:
    release, reached = Event(), Event()

    def hangs(frames: Frames) -> Frames:
        for taken in frames:
            reached.set()
            release.wait(30)
            yield taken

    with Graph(make_config(make_chain(Camera(10, paced=True), Work(), hangs))) as graph:
        assert reached.wait(5)
        began = time.monotonic()
    assert time.monotonic() - began < 2.5
    release.set()
    for task in graph.hanging():
        task.thread.join(5)


def test_an_output_gets_time_to_finish_its_file() -> None:
    finished = Event()

    def slow_to_finish(frames: Frames) -> Frames:
        yield from frames
        time.sleep(1.5)
        finished.set()

    with Graph(make_config(make_chain(Camera(10_000, paced=True), Work(), slow_to_finish))) as graph:
        while graph.workers[-1].yielded < 3:
            graph.wait(0.01)
    assert finished.is_set()


def test_a_stage_may_return_any_iterator() -> None:
    sink = Ledger()
    graph = run_graph(make_chain(Camera(20), lambda frames: map(replace, frames), sink))
    assert graph.error is None
    assert sink.numbers == list(range(20))


def test_outputs_start_before_sources() -> None:
    started: list[str] = []

    @dataclass
    class Starting:
        name: str
        inner: Camera | Ledger = field(default_factory=Ledger)

        def __call__(self, frames: Frames) -> Frames:
            started.append(self.name)
            yield from self.inner(frames)

    run_graph(
        [
            make_node("camera", "source", Starting("camera", Camera(3))),
            make_node("sink", "output", Starting("sink"), "camera"),
        ]
    )
    assert started == ["sink", "camera"]


def test_nothing_is_left_behind() -> None:
    run_graph(make_chain(Camera(3), Work(), Ledger()))
    process = psutil.Process()
    threads, files = threading.active_count(), process.num_fds()
    for _ in range(10):
        run_graph(make_chain(Camera(30), Work(), Ledger()))
    assert threading.active_count() == threads
    assert process.num_fds() <= files + 1
