"""A changed graph file applied to a running graph: by `reload`, and by SIGHUP to the program."""

from __future__ import annotations

import signal
import subprocess
import threading
from dataclasses import dataclass
from functools import partialmethod
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from stream_seg.config.config import Config
from stream_seg.errors import ConfigError, OutputError, SourceError
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.reload import reload, reloader
from stream_seg.runtime.worker import Worker
from stream_seg.stages.base import Frames
from stream_seg.stages.capture import Capture
from tests.support.clips import number_image, write_video
from tests.support.fake_stages import Camera, Ledger, Work, make_camera, make_config, make_fan_in, make_node
from tests.support.program import start_program, wait_until
from tests.support.time_limits import TimeLimit


def find_worker(graph: Graph, name: str) -> Worker:
    return next(worker for worker in graph.workers if worker.node.name == name)


def test_the_stream_of_a_replaced_source_goes_on_in_number_and_time() -> None:
    received: list[Frame] = []

    def sink(frames: Frames) -> Frames:
        for frame in frames:
            received.append(frame)
            yield frame

    def make_graph(source: str) -> Config:
        nodes = [make_camera(source, stream="front"), make_node("sink", "output", sink, source)]
        return make_config(nodes, policy="every")

    configs = [make_graph("a"), make_graph("a"), make_graph("b")]
    with Graph(configs[0]) as graph:
        for before, after in pairwise(configs):
            wait_until(lambda: len(received) > 5)
            reload(graph, before, after)
            number = len(received)
            wait_until(lambda number=number: len(received) > number + 5)  # type: ignore[misc]
    steps = np.diff([frame.seq for frame in received])
    assert (steps > 0).all()
    assert steps.max() <= 3  # frames that were on the way when their source was removed are dropped
    assert (np.diff([float(frame.pts * frame.time_base) for frame in received]) > 0).all()


def test_an_output_that_fails_during_a_reload_ends_the_run() -> None:
    work, sink = Work(), Ledger()

    @dataclass
    class FailingAtItsEnd(Camera):
        def __call__(self, frames: Frames) -> Frames:
            try:
                yield from super().__call__(frames)
            finally:
                graph.fail(OutputError("cannot write out.mp4: disk full"))

    cameras = [FailingAtItsEnd(1_000_000, paced=True), Camera(1_000_000, paced=True)]
    old, new = (make_fan_in(make_node("front", "source", camera), work=work, sink=sink) for camera in cameras)
    with Graph(old) as graph:
        wait_until(lambda: len(sink.received) > 3)
        with pytest.raises(ConfigError, match="front: cannot be added, the run is ending"):
            reload(graph, old, new)
        assert graph.wait(30)
    assert "disk full" in str(graph.error)


def test_a_requested_end_does_not_wait_for_removed_sources_that_hang(
    monkeypatch: pytest.MonkeyPatch, time_limit: TimeLimit
) -> None:
    monkeypatch.setattr(Graph, "remove", partialmethod(Graph.remove, timeout_s=90))
    work, sink, began, release = Work(), Ledger(), threading.Event(), threading.Event()

    def hang(_: Frames) -> Frames:
        began.set()
        release.wait(90)
        yield from ()

    sources = [make_camera("front"), *(make_node(name, "source", hang) for name in ("rear", "side"))]
    old = make_fan_in(*sources, work=work, sink=sink)
    with Graph(old) as graph:
        assert began.wait(10)
        threading.Timer(0.2, graph.stop_requested.set).start()
        with time_limit(3):
            reload(graph, old, make_fan_in(sources[0], work=work, sink=sink))
        release.set()


def test_the_only_source_can_be_replaced_and_nothing_but_sources_can_be_changed() -> None:
    work, sink = Work(), Ledger()
    old = make_fan_in(make_camera("front"), work=work, sink=sink)
    with Graph(old) as graph:
        wait_until(lambda: len(sink.received) > 3)
        changed = make_camera("front", stream="other")
        new = reload(graph, old, make_fan_in(changed, work=work, sink=sink))
        wait_until(lambda: sink.received[-1][0] == "other")
        with pytest.raises(ConfigError, match="only sources can be changed"):
            reload(graph, new, make_fan_in(changed, work=Work(delay_s=0.5), sink=sink))
        number = len(sink.received)
        wait_until(lambda: len(sink.received) > number + 3)
        assert not graph.done.is_set()


@pytest.mark.parametrize(
    ("keys", "message", "retried"),
    [
        ({"uri": "/dev/video63"}, "/dev/video63: no such camera", True),
        ({"uri": "/dev/video63", "reconnect": False}, "/dev/video63: no such camera", False),
        ({"uri": "nofile.mp4", "loop": True}, "nofile.mp4: no such file", True),
        ({"uri": "nofile.mp4"}, "nofile.mp4: no such file", False),
    ],
)
def test_an_added_source_that_cannot_be_opened_does_not_affect_the_others(
    keys: dict[str, Any], message: str, retried: bool, caplog: pytest.LogCaptureFixture
) -> None:
    work, sink = Work(), Ledger()
    old = make_fan_in(make_camera("front"), work=work, sink=sink)
    rear = make_node("rear", "source", Capture(stream="rear", **keys))
    with Graph(old) as graph:
        wait_until(lambda: len(sink.received) > 3)
        new = reload(graph, old, make_fan_in(make_camera("front"), rear, work=work, sink=sink))
        wait_until(lambda: message in caplog.text)
        worker = find_worker(graph, "rear")
        wait_until(lambda: worker.source.state == "down")
        number = len(sink.received)
        wait_until(lambda: sum(stream == "front" for stream, *_ in sink.received[number:]) > 5)
        assert worker.failed != retried
        reload(graph, new, make_fan_in(make_camera("front"), make_camera("rear"), work=work, sink=sink))
        wait_until(lambda: find_worker(graph, "rear").source.state == "up")
    assert graph.error is None


def test_a_reload_starts_a_failed_source_again(tmp_path: Path) -> None:
    work, sink, clip = Work(), Ledger(), tmp_path / "a.mp4"
    old = make_fan_in(make_camera("front"), work=work, sink=sink)
    both = make_fan_in(
        make_camera("front"), make_node("rear", "source", Capture(str(clip), stream="rear")), work=work, sink=sink
    )
    with Graph(old) as graph:
        reload(graph, old, both)
        wait_until(lambda: graph.workers[-1].failed)
        write_video(clip, (number_image(n) for n in range(10)))
        reload(graph, both, both)
        wait_until(lambda: sink.count("rear") > 0)
        assert graph.workers[-1].node.name == "rear"
    assert graph.error is None


def test_the_run_ends_with_an_error_when_every_source_has_failed() -> None:
    work, sink = Work(), Ledger()
    old = make_fan_in(make_camera("front"), work=work, sink=sink)
    with Graph(old) as graph:
        reload(graph, old, make_fan_in(make_node("front", "source", Capture("nofile.mp4")), work=work, sink=sink))
        assert graph.wait(30)
    assert isinstance(graph.error, SourceError)


def test_a_camera_that_is_absent_at_the_start_is_tried_again_beside_others() -> None:
    work, sink = Work(), Ledger()
    absent = make_node("rear", "source", Capture("/dev/video63", stream="rear"))
    with Graph(make_fan_in(make_camera("front"), absent, work=work, sink=sink)) as graph:
        wait_until(lambda: {stream for stream, *_ in sink.received} == {"front", "rear"})
        rear = find_worker(graph, "rear")
        wait_until(lambda: rear.source.state == "down")
    assert graph.error is None


@pytest.mark.parametrize("keys", [{"uri": "nofile.mp4"}, {"uri": "nofile.mp4", "loop": True}])
def test_a_missing_file_at_the_start_ends_the_run_beside_others_too(keys: dict[str, Any]) -> None:
    work, sink = Work(), Ledger()
    missing = make_node("rear", "source", Capture(stream="rear", **keys))
    with Graph(make_fan_in(make_camera("front"), missing, work=work, sink=sink)) as graph:
        assert graph.wait(30)
    assert isinstance(graph.error, SourceError)


def test_a_source_that_hangs_is_removed_and_later_reloads_work(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Graph, "remove", partialmethod(Graph.remove, timeout_s=0.2))
    work, sink, began, release = Work(), Ledger(), threading.Event(), threading.Event()

    def hang(_: Frames) -> Frames:
        began.set()
        release.wait(60)
        raise SourceError("rear: the connection was closed")
        yield

    old = make_fan_in(
        make_camera("front"), make_node("rear", "source", hang), make_camera("side"), work=work, sink=sink
    )
    later = (["front", "left"], ["front"], ["front", "rear"])
    configs = [make_fan_in(*map(make_camera, names), work=work, sink=sink) for names in later]
    with Graph(old) as graph:
        assert began.wait(10)
        thread = find_worker(graph, "rear").thread
        apply = reloader(graph, old, lambda: configs.pop(0))
        apply()
        assert "rear: has not ended within 0.2 s" in caplog.text
        wait_until(lambda: sink.received[-1][0] == "left")
        apply()
        assert {worker.node.name for worker in graph.workers} == {"front", "work", "sink"}
        apply()
        wait_until(lambda: sink.received[-1][0] == "rear")
        release.set()
        thread.join(10)
        assert "the connection was closed" in caplog.text
        number = len(sink.received)
        wait_until(lambda: {stream for stream, *_ in sink.received[number:]} == {"front", "rear"})
    assert graph.error is None


SOURCE = "  {0}: {{stage: synthetic, width: 96, height: 64, paced: true}}\n"
GRAPH = """stages:
{0}  segment: {{input: [{1}], threads: 1}}
  records: {{input: segment, path: '{2}'}}
metrics: {{port: {3}}}
"""


def write_graph(path: Path, names: list[str], records: Path, port: int) -> None:
    path.write_text(GRAPH.format("".join(map(SOURCE.format, names)), ", ".join(names), records, port))


def reload_bad_file(program: subprocess.Popen[str]) -> str:
    """Send SIGHUP after a bad file was written. Return the log up to the error, which shows no password."""
    program.send_signal(signal.SIGHUP)
    assert program.stderr is not None
    log = ""
    while "not reloaded" not in log:
        line = program.stderr.readline()
        assert line, "the program has ended"
        log += line
    assert "hunter2" not in log
    return log


def test_sighup_applies_the_file_and_a_bad_file_changes_nothing(tmp_path: Path, unused_port: int) -> None:
    file, records = tmp_path / "g.yaml", tmp_path / "o.jsonl"

    def sources_up() -> set[str]:
        try:
            text = urlopen(f"http://127.0.0.1:{unused_port}/metrics").read().decode()
        except OSError:
            return set()
        ups = [line for line in text.splitlines() if line.startswith("stream_seg_source_up{")]
        return {line.partition('"')[2].partition('"')[0] for line in ups if line.endswith(" 1.0")}

    def recorded_streams() -> set[str]:
        lines = (tmp_path / "o.partial.jsonl").read_text().splitlines()
        return {line.partition('"stream": "')[2].partition('"')[0] for line in lines}

    write_graph(file, ["front"], records, unused_port)
    with start_program("run", "--config", file, "--overwrite") as program:
        wait_until(lambda: sources_up() == {"front"}, program)
        for names in (["front", "rear"], ["rear"], ["left", "rear"]):
            write_graph(file, names, records, unused_port)
            program.send_signal(signal.SIGHUP)
            wait_until(lambda names=names: sources_up() == set(names), program)  # type: ignore[misc]
            wait_until(lambda names=names: set(names) <= recorded_streams(), program)  # type: ignore[misc]
        file.write_text("stages: {capture: {uri: 'rtsp://me:hunter2@host/live', colour: red}}")
        assert "unknown key 'colour'" in reload_bad_file(program)
        for address in ("rtsp://me:hunter2@10.1.0.11：554/live", "rtsp://me:hunter2@[::1/live"):
            for left, message in (
                (f"{{stage: capture, uri: '{address}'}}", "stages.left.uri: the input rtsp://"),
                (f"'{address}'", "stages.left: expected mapping, got 'rtsp://"),
            ):
                both = f"  left: {left}\n{SOURCE.format('rear')}"
                file.write_text(GRAPH.format(both, "left, rear", records, unused_port))
                assert message in reload_bad_file(program)
        assert sources_up() == {"left", "rear"}
        program.terminate()
        assert program.wait(10) == 0
    assert records.exists()


def test_sighup_does_not_let_an_output_overwrite_an_input(tmp_path: Path) -> None:
    file, clip = tmp_path / "g.yaml", write_video(tmp_path / "a.mp4", (number_image(n) for n in range(10)))
    before = clip.read_bytes()
    write = "{0}  write: {{input: [front{1}], path: '{2}/{{stream}}.mp4'}}\n"
    graph = "stages:\n" + SOURCE.replace("{0}", "front") + write
    file.write_text(graph.format("", "", tmp_path))
    with start_program("run", "--config", file, "--overwrite", "--set", "write.preset=ultrafast") as program:
        wait_until(lambda: (tmp_path / "front.partial.mp4").exists(), program)
        file.write_text(graph.format(f"  a: {{stage: capture, uri: '{clip}', loop: true}}\n", ", a", tmp_path))
        assert "a.mp4: is the input as well" in reload_bad_file(program)
        file.write_text(graph.format("  a: {stage: synthetic, paced: !!bool maybe}\n", ", a", tmp_path))
        assert "'maybe' is no bool" in reload_bad_file(program)
        program.terminate()
        assert program.wait(10) == 0
    assert clip.read_bytes() == before
    assert (tmp_path / "front.mp4").exists()
