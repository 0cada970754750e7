"""Sources that are added to a running graph and removed from it, without effect on the other sources and counters."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from dataclasses import replace

import pytest

from stream_seg.errors import ConfigError
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.report import Report
from stream_seg.stages.base import Frames
from stream_seg.telemetry.metrics import Metrics
from stream_seg.types import Image
from tests.support.fake_stages import Ledger, Work, make_camera, make_config, make_fan_in, make_node
from tests.support.frames import make_frame
from tests.support.program import wait_until


def read_counters(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return the value of every counter by name and labels."""
    return {
        (sample.name, str(sample.labels)): sample.value
        for metric in metrics.collect()
        for sample in metric.samples
        if sample.name.endswith(("_total", "_count"))
    }


def test_a_source_is_added_removed_and_added_again_beside_another() -> None:
    work, sink = Work(), Ledger()
    with Graph(make_fan_in(make_camera("front"), work=work, sink=sink)) as graph:
        metrics = Metrics(graph)
        wait_until(lambda: len(sink.received) > 3)
        at_first = read_counters(metrics)
        assert not any("rear" in labels for _, labels in at_first)

        graph.add(make_camera("rear"), into=["work"])
        wait_until(lambda: sink.count("rear") > 5)
        link = next(link for link in graph.link_stats if link.name == "rear->work")
        with_rear = read_counters(metrics)
        assert any("rear" in labels for _, labels in with_rear)

        graph.remove("rear")
        counts = link.counts()
        assert counts.in_flight == 0
        assert counts.entered == counts.delivered + sum(counts.dropped.values())
        without_rear = read_counters(metrics)
        assert without_rear.keys() == at_first.keys()
        assert all(without_rear[name] >= value for name, value in at_first.items())
        number = len(sink.received)
        wait_until(lambda: len(sink.received) > number + 5)
        assert {stream for stream, *_ in sink.received[number + 3 :]} == {"front"}

        graph.add(make_camera("rear"), into=["work"])
        wait_until(lambda: sink.received[-1][0] == "rear")
        again = read_counters(metrics)
        assert again.keys() == with_rear.keys()
        assert all(again[name] >= value for name, value in with_rear.items()), "a counter went back"
    numbers = [seq for stream, seq, _ in sink.received if stream == "front"]
    assert numbers == sorted(set(numbers))
    assert graph.error is None
    assert all(link.counts().in_flight == 0 for link in graph.link_stats)


def test_adding_and_removing_ten_times_leaves_no_thread() -> None:
    work, sink = Work(), Ledger()
    with Graph(make_fan_in(make_camera("front"), work=work, sink=sink)) as graph:
        wait_until(lambda: len(sink.received) > 3)
        before = threading.active_count()
        for _ in range(10):
            graph.add(make_camera("rear"), into=["work"])
            graph.remove("rear")
        assert threading.active_count() == before


def test_no_image_of_a_removed_source_stays_in_memory() -> None:
    images: list[weakref.ref[Image]] = []

    def send(_: Frames) -> Frames:
        for number in itertools.count():
            time.sleep(0.01)
            frame = make_frame(number, stream="rear")
            images.append(weakref.ref(frame.image))
            yield frame

    work, sink = Work(), Ledger()
    with Graph(make_fan_in(make_camera("front"), work=work, sink=sink)) as graph:
        graph.add(make_node("rear", "source", send), into=["work"])
        wait_until(lambda: sink.count("rear") > 3)
        graph.remove("rear")
        number = len(sink.received)
        wait_until(lambda: len(sink.received) > number + 3)
        gc.collect()
        assert not any(image() is not None for image in images)


def test_the_ages_of_a_stream_go_on_when_its_source_is_added_again() -> None:
    sink = Ledger(delay_s=0.003)
    rear = make_camera("rear")
    nodes = [make_camera("front"), rear, make_node("sink", "output", sink, "front", "rear")]
    with Graph(make_config(nodes, policy="every")) as graph:
        (output,) = [worker for worker in graph.workers if worker.is_output]
        for _ in range(4):
            number = sink.count("rear")
            wait_until(lambda number=number: sink.count("rear") > number + 3)  # type: ignore[misc]
            ages = output.ages["rear"]
            graph.remove("rear")
            assert "rear" not in output.ages
            graph.add(rear, into=["sink"])
            assert output.ages["rear"] is ages
        graph.stop()
        assert graph.wait(30)
    assert ages.samples.count == sink.count("rear")
    assert output.ages["front"].samples.count == sink.count("front")


def test_an_added_source_has_no_last_frame_yet() -> None:
    release = threading.Event()

    def stay_silent(_: Frames) -> Frames:
        release.wait(30)
        yield from ()

    sink = Ledger()
    nodes = [make_camera("front"), make_camera("rear"), make_node("sink", "output", sink, "front", "rear")]
    with Graph(make_config(nodes)) as graph:
        (output,) = [worker for worker in graph.workers if worker.is_output]
        wait_until(lambda: output.ages["rear"].last_s > 0)
        graph.remove("rear")
        wait_until(lambda: all(link.counts().in_flight == 0 for link in graph.all_link_stats if "rear" in link.name))
        graph.add(replace(make_camera("rear"), stage=stay_silent), into=["sink"])
        assert output.ages["rear"].last_s == 0
        assert output.ages["rear"].samples.count > 0
        release.set()


def test_the_counts_stay_right_when_a_source_is_removed_while_the_next_stage_hangs() -> None:
    hang, hangs, release, received = threading.Event(), threading.Event(), threading.Event(), list[str]()

    def sink(frames: Frames) -> Frames:
        for frame in frames:
            if hang.is_set() and frame.stream == "front":
                hangs.set()
                release.wait(60)
            received.append(frame.stream)
            yield frame

    nodes = [make_camera("front"), make_camera("rear"), make_node("sink", "output", sink, "front", "rear")]
    with Graph(make_config(nodes, policy="latest")) as graph:
        wait_until(lambda: received.count("front") > 3 and received.count("rear") > 3)
        hang.set()
        assert hangs.wait(30)
        link = next(link for link in graph.link_stats if link.name == "rear->sink")
        wait_until(lambda: link.counts().in_flight == 2)  # one sent, one at the sending end
        graph.remove("rear", timeout_s=0.2)
        assert link.counts().in_flight == 0
        hang.clear()
        release.set()
        number = received.count("front")
        wait_until(lambda: received.count("front") > number + 3)
        assert link.counts().in_flight == 0
        number = received.count("rear")
        graph.add(make_camera("rear"), into=["sink"])
        wait_until(lambda: received.count("rear") > number + 3)
        assert link.counts().in_flight >= 0


def test_the_report_counts_the_frames_of_a_removed_source() -> None:
    work, sink = Work(), Ledger()
    with Graph(make_fan_in(make_camera("front"), make_camera("rear"), work=work, sink=sink)) as graph:
        wait_until(lambda: sink.count("rear") > 5)
        graph.remove("rear")
    frames = Report.of(graph, seconds=1).to_dict()["frames"]
    assert frames["captured"] == frames["written"] + sum(frames["dropped"].values())


def test_sources_that_hang_are_waited_for_together() -> None:
    work, sink, release = Work(), Ledger(), threading.Event()

    def hang(_: Frames) -> Frames:
        release.wait(60)
        yield from ()

    names = [f"camera{number}" for number in range(20)]
    sources = [make_camera("front"), *(make_node(name, "source", hang) for name in names)]
    with Graph(make_fan_in(*sources, work=work, sink=sink)) as graph:
        began_s = time.monotonic()
        graph.remove(*names, timeout_s=1)
        assert time.monotonic() - began_s < 10  # one after the other it would be 20 s
        release.set()


def test_the_only_source_cannot_be_removed() -> None:
    work, sink = Work(), Ledger()
    with Graph(make_fan_in(make_camera("front"), work=work, sink=sink)) as graph:
        with pytest.raises(ConfigError, match="front: is the only source"):
            graph.remove("front")
        with pytest.raises(ConfigError, match="rear: no such source; there are front"):
            graph.remove("rear")
        wait_until(lambda: sink.received)
