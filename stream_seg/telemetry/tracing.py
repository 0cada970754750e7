"""OpenTelemetry traces of a share of the frames, and of every late frame.

A frame carries the stamps of all its stages, so the whole trace is made when an output has finished the frame.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stream_seg.config.document import TracesConfig
from stream_seg.errors import ConfigError, OutputError
from stream_seg.files.writing import make_folder, map_write_errors, require_writable
from stream_seg.frame import Frame
from stream_seg.installation import install_hint
from stream_seg.runtime.graph import Graph

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

LONGEST_SPAN = 1 << 16
"""Bytes of a line of traces, at most."""
EXPORT_TIMEOUT_S = 1.0
"""Time that a collector may take for a batch; the end of a run waits no longer for a missing collector."""


@contextmanager
def trace_frames(graph: Graph, config: TracesConfig, *, deadline_ms: float) -> Iterator[None]:
    """Export the traces of a graph as `config` says. Enter before the graph starts.

    Raises ConfigError if the package is missing, OutputError if the file cannot be written.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"traces: needs OpenTelemetry ({error}): {install_hint('[trace]')}") from error
    with _exporter(config) as exporter:
        provider = TracerProvider(resource=Resource.create({"service.name": "stream_seg"}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=1000 * EXPORT_TIMEOUT_S))
        follow(graph, provider, every=max(1, round(1 / config.sample)) if config.sample else 0, deadline_ms=deadline_ms)
        try:
            yield
        finally:
            provider.shutdown()


def follow(graph: Graph, provider: TracerProvider, *, every: int, deadline_ms: float) -> None:
    """Trace every `every`-th frame of each stream, and every late one; 0 traces late frames only."""
    tracer = provider.get_tracer("stream_seg")

    def sample(frame: Frame) -> None:
        late = frame.stamps[-1].ended_ns - frame.captured_ns > deadline_ms * 1e6
        if late or (every and frame.seq % every == 0):
            _emit(tracer, frame, late=late)

    for worker in graph.workers:
        if worker.is_output:
            worker.trace = sample


def _emit(tracer: Tracer, frame: Frame, *, late: bool) -> None:
    """Export a span `frame`, from its capture to the end of its output, with a child span for every stage."""
    from opentelemetry.trace import set_span_in_context

    # stamps use the monotonic clock, which is never set; a trace needs calendar time
    to_epoch_ns = time.time_ns() - time.monotonic_ns()
    attributes: dict[str, str | int | bool] = {"stream": frame.stream, "seq": frame.seq, "late": late}
    frame_span = tracer.start_span("frame", start_time=frame.captured_ns + to_epoch_ns, attributes=attributes)
    parent = set_span_in_context(frame_span)
    for stamp in frame.stamps:
        stage_span = tracer.start_span(stamp.stage, parent, start_time=stamp.began_ns + to_epoch_ns)
        stage_span.end(stamp.ended_ns + to_epoch_ns)
    frame_span.end(frame.stamps[-1].ended_ns + to_epoch_ns)


def _require_traces(path: Path) -> None:
    """Raise OutputError unless traces may be appended to a file: a new or an empty one, or one that holds traces."""
    with map_write_errors(path):
        if not path.is_file() or not path.stat().st_size:
            return
        with path.open("rb") as file:
            first = file.readline(LONGEST_SPAN)
    try:
        holds_traces = {"name", "context"} <= json.loads(first).keys()
    except (ValueError, AttributeError):
        holds_traces = False
    if not holds_traces:
        raise OutputError(f"cannot write {path}: the file exists and holds no traces; choose another one")


@contextmanager
def _exporter(config: TracesConfig) -> Iterator[SpanExporter]:
    if config.file is not None:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        require_writable(config.file)
        _require_traces(config.file)
        make_folder(config.file.parent, config.file)
        with config.file.open("a", encoding="utf-8") as file:
            yield ConsoleSpanExporter(out=file, formatter=lambda span: f"{span.to_json(indent=None)}\n")
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            f"traces.endpoint: needs OpenTelemetry's exporter ({error}): {install_hint('[trace]')}"
        ) from error
    yield OTLPSpanExporter(endpoint=config.endpoint, timeout=EXPORT_TIMEOUT_S)
