from __future__ import annotations

import json
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stream_seg.config.graph_file import TracesConfig
from stream_seg.errors import ConfigError, OutputError
from stream_seg.runtime.graph import Graph
from stream_seg.telemetry.tracing import follow, tracing
from tests.support.fake_stages import Camera, Ledger, Work, config, line
from tests.support.program import refused


def traced(*, every: int, deadline_ms: float, delay_s: float = 0.0) -> list[ReadableSpan]:
    """The spans of six frames through camera -> work -> sink."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    graph = Graph(config(line(Camera(6), Work(delay_s), Ledger())), live=False)
    follow(graph, provider, every=every, deadline_ms=deadline_ms)
    with graph:
        assert graph.wait(10)
    return list(kept.get_finished_spans())


def numbers(spans: list[ReadableSpan]) -> list[object]:
    return [(span.attributes or {})["seq"] for span in spans if span.name == "frame"]


def test_a_share_of_the_frames_is_traced_with_a_span_for_every_stage() -> None:
    began_ns = time.time_ns()
    spans = traced(every=3, deadline_ms=60_000)
    assert numbers(spans) == [0, 3]
    first = [span for span in spans if span.context.trace_id == spans[0].context.trace_id]
    assert [span.name for span in first] == ["camera", "work", "sink", "frame"]
    *stages, whole = first
    assert all(stage.parent and stage.parent.span_id == whole.context.span_id for stage in stages)
    times = [(span.start_time, span.end_time) for span in first]
    assert all(start is not None and end is not None and start <= end for start, end in times)
    assert whole.start_time == stages[0].start_time
    assert began_ns <= (whole.start_time or 0) <= time.time_ns()
    assert whole.end_time == stages[-1].end_time


def test_a_clock_that_is_set_does_not_mislead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has no clock of its own and asks for the time after it has begun."""
    asked, hour_ns = [0], 3_600_000_000_000

    def set_back_first() -> int:
        asked[0] += 1
        return now() - (hour_ns if asked[0] == 1 else 0)

    now = time.time_ns
    monkeypatch.setattr("stream_seg.telemetry.tracing.time.time_ns", set_back_first)
    spans = [span for span in traced(every=1, deadline_ms=60_000) if span.name == "frame"]
    assert len(spans) == 6
    assert sum(abs(now() - (span.end_time or 0)) < hour_ns / 2 for span in spans) == 5


def test_every_late_frame_is_traced() -> None:
    assert numbers(traced(every=0, deadline_ms=60_000, delay_s=0.02)) == []
    assert numbers(traced(every=0, deadline_ms=10, delay_s=0.02)) == list(range(6))


def test_a_file_gets_a_line_per_span(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    graph = Graph(config(line(Camera(6), Work(), Ledger())), live=False)
    with tracing(graph, TracesConfig(file=path, sample=0.5), deadline_ms=60_000), graph:
        assert graph.wait(10)
    spans = [json.loads(written) for written in path.read_text().splitlines()]
    assert [span["attributes"]["seq"] for span in spans if span["name"] == "frame"] == [0, 2, 4]
    assert len(spans) == 3 * 4


def test_a_collector_gets_them(unused_port: int) -> None:
    got: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", unused_port), Collector)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        graph = Graph(config(line(Camera(3), Work(), Ledger())), live=False)
        where = TracesConfig(endpoint=f"http://127.0.0.1:{unused_port}/v1/traces", sample=1)
        with tracing(graph, where, deadline_ms=60_000), graph:
            assert graph.wait(10)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert b"stream_seg" in b"".join(got)


def test_an_unwritable_file_is_refused(tmp_path: Path) -> None:
    graph = Graph(config(line(Camera(1), Work(), Ledger())), live=False)
    where = TracesConfig(file=tmp_path / "nowhere" / "traces.jsonl")
    with pytest.raises(OutputError, match="there is no folder"), tracing(graph, where, deadline_ms=1):
        pass


def test_neither_place_or_both_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    code, said = refused(capfd, "synth://road?frames=1", out, "--set", "traces.sample=0.5")
    assert (code, "expected endpoint or file" in said) == (2, True), said


def test_without_traces_nothing_watches() -> None:
    graph = Graph(replace(config(line(Camera(1), Work(), Ledger())), traces=None), live=False)
    assert all(task.trace is None for task in graph.tasks)


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    graph = Graph(config(line(Camera(1), Work(), Ledger())), live=False)
    with (
        pytest.raises(ConfigError, match=r"'\.\[trace\]'"),
        tracing(graph, TracesConfig(file=tmp_path / "t"), deadline_ms=1),
    ):
        pass
