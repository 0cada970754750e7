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

from stream_seg.config.document import TracesConfig
from stream_seg.errors import ConfigError, OutputError
from stream_seg.runtime.graph import Graph
from stream_seg.telemetry.tracing import follow, trace_frames
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config
from tests.support.program import run_failing


def trace(*, every: int, deadline_ms: float, delay_s: float = 0.0) -> list[ReadableSpan]:
    """Return the spans of six frames through camera -> work -> sink."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    graph = Graph(make_config(make_chain(Camera(6), Work(delay_s), Ledger())))
    follow(graph, provider, every=every, deadline_ms=deadline_ms)
    with graph:
        assert graph.wait(10)
    return list(exporter.get_finished_spans())


def frame_numbers(spans: list[ReadableSpan]) -> list[object]:
    """Return the number of every traced frame."""
    return [(span.attributes or {})["seq"] for span in spans if span.name == "frame"]


def test_a_share_of_the_frames_is_traced_with_a_span_for_every_stage() -> None:
    began_ns = time.time_ns()
    spans = trace(every=3, deadline_ms=60_000)
    assert frame_numbers(spans) == [0, 3]
    first = [span for span in spans if span.context.trace_id == spans[0].context.trace_id]
    assert [span.name for span in first] == ["camera", "work", "sink", "frame"]
    *stages, whole = first
    assert all(stage.parent and stage.parent.span_id == whole.context.span_id for stage in stages)
    times = [(span.start_time, span.end_time) for span in first]
    assert all(start is not None and end is not None and start <= end for start, end in times)
    assert whole.start_time == stages[0].start_time
    assert began_ns <= (whole.start_time or 0) <= time.time_ns()
    assert whole.end_time == stages[-1].end_time


def test_setting_the_clock_affects_only_earlier_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a hardware clock gets its time from the network after the program has started."""
    calls, hour_ns = [0], 3_600_000_000_000

    def an_hour_behind_at_first() -> int:
        calls[0] += 1
        return now() - (hour_ns if calls[0] == 1 else 0)

    now = time.time_ns
    monkeypatch.setattr("stream_seg.telemetry.tracing.time.time_ns", an_hour_behind_at_first)
    spans = [span for span in trace(every=1, deadline_ms=60_000) if span.name == "frame"]
    assert len(spans) == 6
    assert sum(abs(now() - (span.end_time or 0)) < hour_ns / 2 for span in spans) == 5


def test_every_late_frame_is_traced() -> None:
    assert frame_numbers(trace(every=0, deadline_ms=60_000, delay_s=0.02)) == []
    assert frame_numbers(trace(every=0, deadline_ms=10, delay_s=0.02)) == list(range(6))


def test_a_file_gets_one_line_per_span(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    graph = Graph(make_config(make_chain(Camera(6), Work(), Ledger())))
    with trace_frames(graph, TracesConfig(file=path, sample=0.5), deadline_ms=60_000), graph:
        assert graph.wait(10)
    spans = [json.loads(text) for text in path.read_text().splitlines()]
    assert [span["attributes"]["seq"] for span in spans if span["name"] == "frame"] == [0, 2, 4]
    assert len(spans) == 3 * 4


def test_a_collector_receives_the_spans(unused_port: int) -> None:
    requests: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", unused_port), Collector)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        graph = Graph(make_config(make_chain(Camera(3), Work(), Ledger())))
        traces = TracesConfig(endpoint=f"http://127.0.0.1:{unused_port}/v1/traces", sample=1)
        with trace_frames(graph, traces, deadline_ms=60_000), graph:
            assert graph.wait(10)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert b"stream_seg" in b"".join(requests)


@pytest.mark.parametrize("content", [b"notes", b'{"frame": 1}\n', b"[1]\n", b"\xff\xd8\xff\n", b"{" * 100_000])
def test_traces_are_not_appended_to_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    graph = Graph(make_config(make_chain(Camera(1), Work(), Ledger())))
    with (
        pytest.raises(OutputError, match="the file exists and holds no traces"),
        trace_frames(graph, TracesConfig(file=path), deadline_ms=60_000),
    ):
        pass
    assert path.read_bytes() == content


def test_traces_of_a_restarted_program_follow_those_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "traces.jsonl"
    for number in (1, 2):
        graph = Graph(make_config(make_chain(Camera(1), Work(), Ledger())))
        with trace_frames(graph, TracesConfig(file=path, sample=1), deadline_ms=60_000), graph:
            assert graph.wait(10)
        assert len(path.read_text().splitlines()) == 4 * number


def test_an_unwritable_file_is_refused(tmp_path: Path) -> None:
    graph = Graph(make_config(make_chain(Camera(1), Work(), Ledger())))
    traces = TracesConfig(file=tmp_path / "no" / "where" / "traces.jsonl")
    with pytest.raises(OutputError, match="no such folder"), trace_frames(graph, traces, deadline_ms=1):
        pass


def test_traces_need_an_endpoint_or_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    code, message = run_failing(capfd, "synth://road?frames=1", out, "--set", "traces.sample=0.5")
    assert (code, "expected either endpoint or file" in message) == (2, True), message


def test_without_traces_no_frame_is_sampled() -> None:
    graph = Graph(replace(make_config(make_chain(Camera(1), Work(), Ledger())), traces=None))
    assert all(worker.trace is None for worker in graph.workers)


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    graph = Graph(make_config(make_chain(Camera(1), Work(), Ledger())))
    with (
        pytest.raises(ConfigError, match=r"'\.\[trace\]'"),
        trace_frames(graph, TracesConfig(file=tmp_path / "t"), deadline_ms=1),
    ):
        pass
