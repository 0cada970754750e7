"""Sources added to and removed from a running graph: nothing else notices, and no count goes back."""

from __future__ import annotations

import gc
import itertools
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from stream_seg.config.graph_file import Config, Node
from stream_seg.errors import ConfigError, OutputError, SourceError
from stream_seg.frame import Frame
from stream_seg.runtime.graph import REMOVE_S, Graph
from stream_seg.runtime.reload import reload, reloader
from stream_seg.runtime.report import Report
from stream_seg.stages.base import Frames
from stream_seg.stages.capture import Capture
from stream_seg.telemetry.metrics import Metrics
from stream_seg.types import Image
from tests.support.clips import number_image, write_video
from tests.support.fake_stages import Camera, Ledger, Work, make_config, make_node
from tests.support.frames import make_frame
from tests.support.program import start_program, wait_until


def camera(name: str) -> Node:
    return make_node(name, "source", Camera(1_000_000, stream=name, paced=True))


def graph_of(*sources: Node, work: Work, sink: Ledger) -> Config:
    names = [source.name for source in sources]
    nodes = [*sources, make_node("work", "smooth", work, *names), make_node("sink", "output", sink, "work")]
    return make_config(nodes, policy="latest")


def until(there: Callable[[], bool], *, within_s: float = 10.0) -> None:
    end_s = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def series(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Every counter by its name and labels."""
    return {
        (sample.name, str(sample.labels)): sample.value
        for metric in metrics.collect()
        for sample in metric.samples
        if sample.name.endswith(("_total", "_count"))
    }


def test_a_source_comes_goes_and_comes_back_and_the_other_never_notices() -> None:
    work, sink = Work(), Ledger()
    with Graph(graph_of(camera("front"), work=work, sink=sink)) as graph:
        metrics = Metrics(graph)
        until(lambda: len(sink.received) > 3)
        at_first = series(metrics)
        assert not any("rear" in labels for _, labels in at_first)

        graph.add(camera("rear"), into=["work"])
        until(lambda: sum(stream == "rear" for stream, *_ in sink.received) > 5)
        link = next(link for link in graph.link_stats if link.name == "rear->work")
        with_rear = series(metrics)
        assert any("rear" in labels for _, labels in with_rear)

        graph.remove("rear")
        account = link.counts()
        assert account.in_flight == 0
        assert account.entered == account.delivered + sum(account.dropped.values())
        without = series(metrics)
        assert without.keys() == at_first.keys()
        assert all(without[name] >= value for name, value in at_first.items())
        number = len(sink.received)
        until(lambda: len(sink.received) > number + 5)
        assert {stream for stream, *_ in sink.received[number + 3 :]} == {"front"}

        graph.add(camera("rear"), into=["work"])
        until(lambda: sink.received[-1][0] == "rear")
        back = series(metrics)
        assert back.keys() == with_rear.keys()
        assert all(back[name] >= value for name, value in with_rear.items()), "a counter went back"
    numbers = [seq for stream, seq, _ in sink.received if stream == "front"]
    assert numbers == sorted(set(numbers))
    assert graph.error is None
    assert all(link.counts().in_flight == 0 for link in graph.link_stats)


def test_ten_comings_and_goings_leave_no_thread() -> None:
    work, sink = Work(), Ledger()
    with Graph(graph_of(camera("front"), work=work, sink=sink)) as graph:
        until(lambda: len(sink.received) > 3)
        before = threading.active_count()
        for _ in range(10):
            graph.add(camera("rear"), into=["work"])
            graph.remove("rear")
        assert threading.active_count() == before


def test_a_camera_that_is_gone_keeps_no_picture() -> None:
    pictures: list[weakref.ref[Image]] = []

    def given(_: Frames) -> Frames:
        for number in itertools.count():
            time.sleep(0.01)
            made = make_frame(number, stream="rear")
            pictures.append(weakref.ref(made.image))
            yield made

    work, sink = Work(), Ledger()
    with Graph(graph_of(camera("front"), work=work, sink=sink)) as graph:
        graph.add(make_node("rear", "source", given), into=["work"])
        until(lambda: sum(stream == "rear" for stream, *_ in sink.received) > 3)
        graph.remove("rear")
        number = len(sink.received)
        until(lambda: len(sink.received) > number + 3)
        gc.collect()
        assert not any(picture() is not None for picture in pictures)


def test_a_stream_whose_source_is_replaced_counts_on_in_number_and_time() -> None:
    kept: list[Frame] = []

    def sink(frames: Frames) -> Frames:
        for taken in frames:
            kept.append(taken)
            yield taken

    def graph(source: Node) -> Config:
        return make_config([source, make_node("sink", "output", sink, source.name)], policy="every")

    def front(name: str) -> Node:
        return make_node(name, "source", Camera(1_000_000, stream="front", paced=True))

    old, same, other = graph(front("a")), graph(front("a")), graph(front("b"))
    with Graph(old) as running_graph:
        for before, after in ((old, same), (same, other)):
            until(lambda: len(kept) > 5)
            reload(running_graph, before, after)
            number = len(kept)
            until(lambda number=number: len(kept) > number + 5)  # type: ignore[misc]
    steps = np.diff([one.seq for one in kept])
    assert (steps > 0).all()
    assert steps.max() <= 3  # what was on the way when a source was removed is dropped, and has its number
    steps_s = np.diff([float(one.pts * one.time_base) for one in kept])
    assert (steps_s > 0).all()
    assert steps_s.max() < 5
    took_s = (kept[-1].captured_ns - kept[0].captured_ns) / 1e9
    assert steps_s.sum() == pytest.approx(took_s, abs=0.3)


def test_every_frame_that_an_output_had_is_in_the_ages_and_a_new_camera_is_given_time() -> None:
    got = list[str]()

    def sink(frames: Frames) -> Frames:
        for taken in frames:
            time.sleep(0.003)
            got.append(taken.stream)
            yield taken

    rear = make_node("rear", "source", Camera(1_000_000, stream="rear", paced=True))
    checked = make_config([camera("front"), rear, make_node("sink", "output", sink, "front", "rear")], policy="every")
    with Graph(checked) as graph:
        (output,) = [task for task in graph.workers if task.is_output]
        for _ in range(4):
            number = len(got)
            until(lambda number=number: got[number:].count("rear") > 3)  # type: ignore[misc]
            ages = output.ages["rear"]
            graph.remove("rear")
            assert "rear" not in output.ages
            graph.add(rear, into=["sink"])
            assert output.ages["rear"] is ages
        graph.stop()
        assert graph.wait(10)
    assert ages.samples.count == got.count("rear")
    assert output.ages["front"].samples.count == got.count("front")


def test_a_camera_that_comes_back_has_reached_no_output_yet() -> None:
    def silent(_: Frames) -> Frames:
        hold.wait(10)
        yield from ()

    hold = threading.Event()
    sink = Ledger()
    with Graph(
        make_config([camera("front"), camera("rear"), make_node("sink", "output", sink, "front", "rear")])
    ) as graph:
        (output,) = [task for task in graph.workers if task.is_output]
        until(lambda: output.ages["rear"].last_s > 0)
        graph.remove("rear")
        until(lambda: all(link.counts().in_flight == 0 for link in graph.all_link_stats if "rear" in link.name))
        graph.add(replace(camera("rear"), stage=silent), into=["sink"])
        assert output.ages["rear"].last_s == 0
        assert output.ages["rear"].samples.count > 0
        hold.set()


def test_a_source_that_is_removed_while_the_stage_behind_it_hangs_leaves_the_books_right() -> None:
    hold, inside, gate, got = threading.Event(), threading.Event(), threading.Event(), list[str]()

    def sink(frames: Frames) -> Frames:
        for taken in frames:
            if hold.is_set() and taken.stream == "front":
                inside.set()
                gate.wait(30)
            got.append(taken.stream)
            yield taken

    nodes = [camera("front"), camera("rear"), make_node("sink", "output", sink, "front", "rear")]
    with Graph(make_config(nodes, policy="latest")) as graph:
        until(lambda: got.count("front") > 3 and got.count("rear") > 3)
        hold.set()
        assert inside.wait(10)
        link = next(link for link in graph.link_stats if link.name == "rear->sink")
        until(lambda: link.counts().in_flight == 2)  # one on the way, and one in the outbox
        graph.remove("rear", timeout_s=0.2)
        assert link.counts().in_flight == 0
        hold.clear()
        gate.set()
        number = got.count("front")
        until(lambda: got.count("front") > number + 3)
        assert link.counts().in_flight == 0
        rear = got.count("rear")
        graph.add(camera("rear"), into=["sink"])
        until(lambda: got.count("rear") > rear + 3)
        assert link.counts().in_flight >= 0


def test_the_report_counts_what_a_removed_source_gave() -> None:
    work, sink = Work(), Ledger()
    with Graph(graph_of(camera("front"), camera("rear"), work=work, sink=sink)) as graph:
        until(lambda: sum(stream == "rear" for stream, *_ in sink.received) > 5)
        graph.remove("rear")
    frames = Report.of(graph, seconds=1).to_dict()["frames"]
    assert frames["captured"] == frames["written"] + sum(frames["dropped"].values())


def test_an_output_that_fails_during_a_reload_ends_the_run() -> None:
    work, sink = Work(), Ledger()

    @dataclass
    class Last(Camera):
        def __call__(self, frames: Frames) -> Frames:
            try:
                yield from super().__call__(frames)
            finally:
                running_graph.fail(OutputError("cannot write out.mp4: disk full"))

    sources = [make_node("front", "source", kind(1_000_000, paced=True)) for kind in (Last, Camera)]
    old, new = (graph_of(source, work=work, sink=sink) for source in sources)
    with Graph(old) as running_graph:
        until(lambda: len(sink.received) > 3)
        with pytest.raises(ConfigError, match="front: cannot be added, the run is ending"):
            reload(running_graph, old, new)
        assert running_graph.wait(10)
    assert "disk full" in str(running_graph.error)


def test_who_asks_for_the_end_need_not_wait_for_a_source_that_hangs() -> None:
    work, sink, began, over = Work(), Ledger(), threading.Event(), threading.Event()

    def hanging(_: Frames) -> Frames:
        began.set()
        over.wait(60)
        return
        yield

    sources = [camera("front"), *(make_node(name, "source", hanging) for name in ("rear", "side"))]
    old = graph_of(*sources, work=work, sink=sink)
    with Graph(old) as graph:
        assert began.wait(10)
        threading.Timer(0.2, graph.stop_requested.set).start()
        began_s = time.monotonic()
        reload(graph, old, graph_of(sources[0], work=work, sink=sink))
        assert time.monotonic() - began_s < REMOVE_S / 2
        over.set()


def test_sources_that_hang_are_waited_for_together() -> None:
    work, sink, over = Work(), Ledger(), threading.Event()

    def hanging(_: Frames) -> Frames:
        over.wait(60)
        return
        yield

    names = [f"camera{number}" for number in range(10)]
    sources = [camera("front"), *(make_node(name, "source", hanging) for name in names)]
    with Graph(graph_of(*sources, work=work, sink=sink)) as graph:
        began_s = time.monotonic()
        graph.remove(*names, timeout_s=0.5)
        assert time.monotonic() - began_s < 2.5
        over.set()


def test_the_only_source_is_replaced_but_not_removed() -> None:
    work, sink = Work(), Ledger()
    old = graph_of(camera("front"), work=work, sink=sink)
    with Graph(old) as graph:
        until(lambda: len(sink.received) > 3)
        with pytest.raises(ConfigError, match="front: is the only source"):
            graph.remove("front")
        with pytest.raises(ConfigError, match="rear: no such source; there are front"):
            graph.remove("rear")
        changed = make_node("front", "source", Camera(1_000_000, stream="other", paced=True))
        new = reload(graph, old, graph_of(changed, work=work, sink=sink))
        until(lambda: sink.received[-1][0] == "other")
        with pytest.raises(ConfigError, match="only sources can be changed"):
            reload(graph, new, graph_of(changed, work=Work(delay_s=0.5), sink=sink))
        number = len(sink.received)
        until(lambda: len(sink.received) > number + 3)
        assert not graph.done.is_set()


@pytest.mark.parametrize(
    ("keys", "said", "lasts"),
    [
        ({"uri": "/dev/video63"}, "/dev/video63: no such camera", True),
        ({"uri": "/dev/video63", "reconnect": False}, "/dev/video63: no such camera", False),
        ({"uri": "nofile.mp4", "loop": True}, "nofile.mp4: no such file", True),
        ({"uri": "nofile.mp4"}, "nofile.mp4: no such file", False),
    ],
)
def test_an_added_source_that_cannot_be_opened_touches_no_other(
    keys: dict[str, Any], said: str, lasts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    work, sink = Work(), Ledger()
    old = graph_of(camera("front"), work=work, sink=sink)
    rear = make_node("rear", "source", Capture(stream="rear", **keys))
    with Graph(old) as graph:
        until(lambda: len(sink.received) > 3)
        new = reload(graph, old, graph_of(camera("front"), rear, work=work, sink=sink))
        until(lambda: said in caplog.text)
        task = next(task for task in graph.workers if task.node.name == "rear")
        until(lambda: task.source.state == "down")
        number = len(sink.received)
        until(lambda: sum(stream == "front" for stream, *_ in sink.received[number:]) > 5)
        assert task.failed != lasts
        back = make_node("rear", "source", Camera(1_000_000, stream="rear", paced=True))
        reload(graph, new, graph_of(camera("front"), back, work=work, sink=sink))
        until(lambda: next(task for task in graph.workers if task.node.name == "rear").source.state == "up")
    assert graph.error is None


def test_a_source_that_failed_is_begun_again_by_the_next_reload(tmp_path: Path) -> None:
    work, sink, clip = Work(), Ledger(), tmp_path / "a.mp4"
    old = graph_of(camera("front"), work=work, sink=sink)
    both = graph_of(
        camera("front"), make_node("rear", "source", Capture(str(clip), stream="rear")), work=work, sink=sink
    )
    with Graph(old) as graph:
        reload(graph, old, both)
        until(lambda: graph.workers[-1].failed)
        write_video(clip, (number_image(n) for n in range(10)))
        reload(graph, both, both)
        until(lambda: any(stream == "rear" for stream, *_ in sink.received))
        assert graph.workers[-1].node.name == "rear"
    assert graph.error is None


def test_the_run_ends_with_an_error_where_only_a_source_that_failed_is_left() -> None:
    work, sink = Work(), Ledger()
    old = graph_of(camera("front"), work=work, sink=sink)
    with Graph(old) as graph:
        reload(graph, old, graph_of(make_node("front", "source", Capture("nofile.mp4")), work=work, sink=sink))
        assert graph.wait(10)
    assert isinstance(graph.error, SourceError)


def test_a_camera_that_is_not_there_at_the_start_is_waited_for_beside_others() -> None:
    work, sink = Work(), Ledger()
    away = make_node("rear", "source", Capture("/dev/video63", stream="rear"))
    with Graph(graph_of(camera("front"), away, work=work, sink=sink)) as graph:
        until(lambda: {stream for stream, *_ in sink.received} == {"front", "rear"})
        rear = next(task for task in graph.workers if task.node.name == "rear")
        until(lambda: rear.source.state == "down")
    assert graph.error is None


@pytest.mark.parametrize("keys", [{"uri": "nofile.mp4"}, {"uri": "nofile.mp4", "loop": True}])
def test_a_mistyped_file_at_the_start_is_an_error_beside_others_too(keys: dict[str, Any]) -> None:
    work, sink = Work(), Ledger()
    mistyped = make_node("rear", "source", Capture(stream="rear", **keys))
    with Graph(graph_of(camera("front"), mistyped, work=work, sink=sink)) as graph:
        assert graph.wait(10)
    assert isinstance(graph.error, SourceError)


def test_a_source_that_hangs_is_removed_all_the_same_and_later_reloads_work(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Graph, "remove", partialmethod(Graph.remove, timeout_s=0.2))
    work, sink, began, over = Work(), Ledger(), threading.Event(), threading.Event()

    def hanging(_: Frames) -> Frames:
        began.set()
        over.wait(30)
        raise SourceError("rear: broke off at last")
        yield

    old = graph_of(camera("front"), make_node("rear", "source", hanging), camera("side"), work=work, sink=sink)
    later = (["front", "left"], ["front"], ["front", "rear"])
    configs = [graph_of(*map(camera, names), work=work, sink=sink) for names in later]
    with Graph(old) as graph:
        assert began.wait(10)
        thread = next(task.thread for task in graph.workers if task.node.name == "rear")
        take_over = reloader(graph, old, lambda: configs.pop(0))
        take_over()
        assert "rear: has not ended within 0.2 s" in caplog.text
        until(lambda: sink.received[-1][0] == "left")
        take_over()
        assert {task.node.name for task in graph.workers} == {"front", "work", "sink"}
        take_over()
        until(lambda: sink.received[-1][0] == "rear")
        over.set()
        thread.join(10)
        assert "broke off at last" in caplog.text
        number = len(sink.received)
        until(lambda: {stream for stream, *_ in sink.received[number:]} == {"front", "rear"})
    assert graph.error is None


SOURCE = "  {0}: {{stage: synthetic, width: 96, height: 64, paced: true}}\n"
GRAPH = """stages:
{0}  segment: {{input: [{1}], threads: 1}}
  records: {{input: segment, path: '{2}'}}
metrics: {{port: {3}}}
"""


def write_graph(path: Path, names: list[str], records: Path, port: int) -> None:
    path.write_text(GRAPH.format("".join(map(SOURCE.format, names)), ", ".join(names), records, port))


def refusal_of(program: subprocess.Popen[str]) -> str:
    """What the log says to a SIGHUP with a bad file; it says no password."""
    program.send_signal(signal.SIGHUP)
    assert program.stderr is not None
    said = ""
    while "not taken over" not in said:
        line = program.stderr.readline()
        assert line, "it ended"
        said += line
    assert "hunter2" not in said
    return said


def test_sighup_takes_the_file_over_and_a_bad_file_changes_nothing(tmp_path: Path, unused_port: int) -> None:
    file, records = tmp_path / "g.yaml", tmp_path / "o.jsonl"

    def sources() -> set[str]:
        try:
            text = urlopen(f"http://127.0.0.1:{unused_port}/metrics").read().decode()
        except OSError:
            return set()
        ups = [line for line in text.splitlines() if line.startswith("stream_seg_source_up{")]
        return {line.partition('"')[2].partition('"')[0] for line in ups if line.endswith(" 1.0")}

    def recorded() -> set[str]:
        lines = (tmp_path / ".o.partial.jsonl").read_text().splitlines()
        return {line.partition('"stream": "')[2].partition('"')[0] for line in lines}

    write_graph(file, ["front"], records, unused_port)
    with start_program("run", "--config", file) as program:
        wait_until(lambda: sources() == {"front"}, program)
        for names in (["front", "rear"], ["rear"], ["left", "rear"]):
            write_graph(file, names, records, unused_port)
            program.send_signal(signal.SIGHUP)
            wait_until(lambda names=names: sources() == set(names), program)  # type: ignore[misc]
            wait_until(lambda names=names: set(names) <= recorded(), program)  # type: ignore[misc]
        file.write_text("stages: {capture: {uri: 'rtsp://me:hunter2@host/live', colour: red}}")
        assert "unknown key 'colour'" in refusal_of(program)
        for address in ("rtsp://me:hunter2@10.1.0.11：554/live", "rtsp://me:hunter2@[::1/live"):
            for left, why in (
                (f"{{stage: capture, uri: '{address}'}}", "stages.left.uri: the input rtsp://"),
                (f"'{address}'", "stages.left: expected mapping, got 'rtsp://"),
            ):
                both = f"  left: {left}\n{SOURCE.format('rear')}"
                file.write_text(GRAPH.format(both, "left, rear", records, unused_port))
                assert why in refusal_of(program)
        assert sources() == {"left", "rear"}
        program.terminate()
        assert program.wait(10) == 0
    assert records.exists()


def test_sighup_does_not_have_an_input_overwritten(tmp_path: Path) -> None:
    file, clip = tmp_path / "g.yaml", write_video(tmp_path / "a.mp4", (number_image(n) for n in range(10)))
    before = clip.read_bytes()
    write = "{0}  write: {{input: [front{1}], path: '{2}/{{stream}}.mp4'}}\n"
    graph = "stages:\n" + SOURCE.replace("{0}", "front") + write
    file.write_text(graph.format("", "", tmp_path))
    with start_program("run", "--config", file, "--set", "write.preset=ultrafast") as program:
        wait_until(lambda: (tmp_path / ".front.partial.mp4").exists(), program)
        file.write_text(graph.format(f"  a: {{stage: capture, uri: '{clip}', loop: true}}\n", ", a", tmp_path))
        assert "a.mp4: is the input as well" in refusal_of(program)
        file.write_text(graph.format("  a: {stage: synthetic, paced: !!bool maybe}\n", ", a", tmp_path))
        assert "'maybe' is no bool" in refusal_of(program)
        program.terminate()
        assert program.wait(10) == 0
    assert clip.read_bytes() == before
    assert (tmp_path / "front.mp4").exists()
