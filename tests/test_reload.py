"""Sources added to and removed from a running graph: nothing else notices, and no count goes back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from stream_seg.config import Config, Node
from stream_seg.errors import ConfigError
from stream_seg.graph import Graph
from stream_seg.metrics import Metrics
from stream_seg.reload import reload
from tests.graphs import Camera, Ledger, Work, config, node
from tests.programs import running, wait_until


def camera(name: str) -> Node:
    return node(name, "synthetic", Camera(1_000_000, stream=name, paced=True))


def graph_of(*sources: Node, work: Work, sink: Ledger) -> Config:
    names = [source.name for source in sources]
    nodes = [*sources, node("work", "smooth", work, *names), node("sink", "write", sink, "work")]
    return config(nodes, policy="latest")


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
    with Graph(graph_of(camera("front"), work=work, sink=sink), live=True) as graph:
        metrics = Metrics(graph)
        until(lambda: len(sink.got) > 3)
        at_first = series(metrics)
        assert not any("rear" in labels for _, labels in at_first)

        graph.add(camera("rear"), into=["work"])
        until(lambda: sum(stream == "rear" for stream, *_ in sink.got) > 5)
        link = next(link for link in graph.links if link.name == "rear->work")
        with_rear = series(metrics)
        assert any("rear" in labels for _, labels in with_rear)

        graph.remove("rear")
        account = link.account()
        assert account.in_flight == 0
        assert account.entered == account.delivered + sum(account.dropped.values())
        without = series(metrics)
        assert without.keys() == at_first.keys()
        assert all(without[name] >= value for name, value in at_first.items())
        number = len(sink.got)
        until(lambda: len(sink.got) > number + 5)
        assert {stream for stream, *_ in sink.got[number + 3 :]} == {"front"}

        graph.add(camera("rear"), into=["work"])
        until(lambda: sink.got[-1][0] == "rear")
        back = series(metrics)
        assert back.keys() == with_rear.keys()
        assert all(back[name] >= value for name, value in with_rear.items()), "a counter went back"
    numbers = [seq for stream, seq, _ in sink.got if stream == "front"]
    assert numbers == sorted(set(numbers))
    assert graph.error is None
    assert all(link.account().in_flight == 0 for link in graph.links)


def test_ten_comings_and_goings_leave_no_thread() -> None:
    work, sink = Work(), Ledger()
    with Graph(graph_of(camera("front"), work=work, sink=sink), live=True) as graph:
        until(lambda: len(sink.got) > 3)
        before = threading.active_count()
        for _ in range(10):
            graph.add(camera("rear"), into=["work"])
            graph.remove("rear")
        assert threading.active_count() == before


def test_the_only_source_is_replaced_but_not_removed() -> None:
    work, sink = Work(), Ledger()
    old = graph_of(camera("front"), work=work, sink=sink)
    with Graph(old, live=True) as graph:
        until(lambda: len(sink.got) > 3)
        with pytest.raises(ConfigError, match="front: is the only source"):
            graph.remove("front")
        with pytest.raises(ConfigError, match="rear: no such source; there are front"):
            graph.remove("rear")
        changed = node("front", "synthetic", Camera(1_000_000, stream="other", paced=True))
        new = reload(graph, old, graph_of(changed, work=work, sink=sink))
        until(lambda: sink.got[-1][0] == "other")
        with pytest.raises(ConfigError, match="only sources can be changed"):
            reload(graph, new, graph_of(changed, work=Work(delay_s=0.5), sink=sink))
        number = len(sink.got)
        until(lambda: len(sink.got) > number + 3)
        assert not graph.done.is_set()


SOURCE = "  {0}: {{stage: synthetic, width: 96, height: 64, paced: true}}\n"
GRAPH = """stages:
{0}  segment: {{input: [{1}], threads: 1}}
  records: {{input: segment, path: '{2}'}}
metrics: {{port: {3}}}
"""


def write_graph(path: Path, names: list[str], records: Path, port: int) -> None:
    path.write_text(GRAPH.format("".join(map(SOURCE.format, names)), ", ".join(names), records, port))


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
    with running("run", "--config", file) as program:
        wait_until(lambda: sources() == {"front"}, program)
        for names in (["front", "rear"], ["rear"], ["left", "rear"]):
            write_graph(file, names, records, unused_port)
            program.send_signal(signal.SIGHUP)
            wait_until(lambda names=names: sources() == set(names), program)  # type: ignore[misc]
            wait_until(lambda names=names: set(names) <= recorded(), program)  # type: ignore[misc]
        file.write_text("stages: {capture: {uri: 'rtsp://me:hunter2@host/live', colour: red}}")
        program.send_signal(signal.SIGHUP)
        assert program.stderr is not None
        said = ""
        while "not taken over" not in said:
            said += program.stderr.readline()
        assert "unknown key 'colour'" in said
        assert "hunter2" not in said
        assert sources() == {"left", "rear"}
        program.terminate()
        assert program.wait(10) == 0
    assert records.exists()
