"""OpenTelemetry traces of frames: a share of them, and every late one. A frame carries the stamps of all its stages, so
its whole trace is made when an output has dealt with it, and nothing is done on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stream_seg.config.graph_file import TracesConfig
from stream_seg.errors import ConfigError
from stream_seg.files import refuse_unwritable
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

INSTALL = "pip install '.[trace]'"
GIVE_UP_S = 1.0
"""How long a collector may take for a batch; the end of a run waits no longer for one that is gone."""


@contextmanager
def tracing(graph: Graph, config: TracesConfig, *, deadline_ms: float) -> Iterator[None]:
    """Give the traces of a graph to where `config` says. To be entered before the graph starts.

    Raises ConfigError where the package is missing, OutputError where the file cannot be written.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"traces: needs OpenTelemetry ({error}): {INSTALL}") from error
    with _exporter(config) as exporter:
        provider = TracerProvider(resource=Resource.create({"service.name": "stream_seg"}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=1000 * GIVE_UP_S))
        follow(graph, provider, every=max(1, round(1 / config.sample)) if config.sample else 0, deadline_ms=deadline_ms)
        try:
            yield
        finally:
            provider.shutdown()


def follow(graph: Graph, provider: TracerProvider, *, every: int, deadline_ms: float) -> None:
    """Trace every so-manieth frame of each stream, and all that are late; 0 traces the late ones alone."""
    tracer = provider.get_tracer("stream_seg")
    for task in graph.tasks:
        if task.is_sink:
            task.trace = _watcher(tracer, every=every, deadline_ms=deadline_ms)


def _watcher(tracer: Tracer, *, every: int, deadline_ms: float) -> Callable[[Frame], None]:
    def watch(frame: Frame) -> None:
        ended_ns = frame.stamps[-1].ended_ns
        late = ended_ns - frame.captured_ns > deadline_ms * 1e6
        if late or (every and frame.seq % every == 0):
            emit(tracer, frame, late=late)

    return watch


def emit(tracer: Tracer, frame: Frame, *, late: bool) -> None:
    """A span `frame` from its capture to its end, and in it a span for every stage."""
    from opentelemetry.trace import set_span_in_context

    # stamps are of the monotonic clock, which nobody sets; a trace is of the calendar's, as it is now
    to_epoch_ns = time.time_ns() - time.monotonic_ns()
    about: dict[str, str | int | bool] = {"stream": frame.stream, "seq": frame.seq, "late": late}
    whole = tracer.start_span("frame", start_time=frame.captured_ns + to_epoch_ns, attributes=about)
    inside = set_span_in_context(whole)
    for stamp in frame.stamps:
        part = tracer.start_span(stamp.stage, inside, start_time=stamp.began_ns + to_epoch_ns)
        part.end(stamp.ended_ns + to_epoch_ns)
    whole.end(frame.stamps[-1].ended_ns + to_epoch_ns)


@contextmanager
def _exporter(config: TracesConfig) -> Iterator[SpanExporter]:
    if config.file is not None:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        refuse_unwritable(config.file)
        with config.file.open("a", encoding="utf-8") as file:
            yield ConsoleSpanExporter(out=file, formatter=_line)
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(f"traces.endpoint: needs OpenTelemetry's exporter ({error}): {INSTALL}") from error
    yield OTLPSpanExporter(endpoint=config.endpoint, timeout=GIVE_UP_S)


def _line(span: ReadableSpan) -> str:
    return json.dumps(json.loads(span.to_json())) + "\n"
