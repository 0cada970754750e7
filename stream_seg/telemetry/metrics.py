"""Every metric of a graph: its name, its labels, and where its numbers stand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from stream_seg.errors import ConfigError
from stream_seg.redact import without_secrets
from stream_seg.runtime.counters import SOURCE_STATES, SegmentTally, SmoothTally, SourceTally
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.histogram import BOUNDS_MS, Ages, Samples
from stream_seg.runtime.link_stats import Account
from stream_seg.telemetry.server import Server

Row: TypeAlias = tuple[Any, ...]
"""The values of a family's labels, then what is measured."""


@dataclass(frozen=True)
class Family:
    """A metric as Prometheus knows it, and where its numbers stand."""

    kind: Callable[..., Any]
    name: str
    says: str
    labels: tuple[str, ...]
    rows: Callable[[Graph], Iterable[Row]]

    def collected(self, graph: Graph) -> Metric:
        """The metric at this moment."""
        metric: Metric = self.kind(self.name, self.says, labels=self.labels)
        count = len(self.labels)
        for row in self.rows(graph):
            metric.add_metric(row[:count], *row[count:])  # type: ignore[attr-defined] # of every kind of family
        return metric


def _sources(graph: Graph) -> Iterator[tuple[str, SourceTally]]:
    return ((task.node.name, task.source) for task in graph.tasks if task.is_source)


def _segments(graph: Graph) -> Iterator[tuple[str, SegmentTally]]:
    return ((task.node.name, task.segment) for task in graph.tasks if task.node.kind == "segment")


def _smooths(graph: Graph) -> Iterator[tuple[str, SmoothTally]]:
    return ((task.node.name, task.smooth) for task in graph.tasks if task.node.kind == "smooth")


def _confidences(graph: Graph) -> Iterator[tuple[str, str, float]]:
    for task in graph.tasks:
        if task.node.kind == "smooth":
            yield from ((task.node.name, stream, task.smooth.confidence.get(stream, 0.0)) for stream in task.streams())


def _going_on(graph: Graph) -> Iterator[tuple[str, str, Ages]]:
    """Those of streams whose source has not ended."""
    over = {stream for task in graph.tasks if task.is_source and task.source.state == "ended" for stream in task.ages}
    return (row for row in _ages(graph) if row[1] not in over)


def _ages(graph: Graph) -> Iterator[tuple[str, str, Ages]]:
    for task in graph.tasks:
        if task.is_sink:
            yield from ((task.node.name, stream, ages) for stream, ages in tuple(task.ages.items()))


def _accounts(graph: Graph) -> Iterator[tuple[str, Account]]:
    return ((link.name, link.account()) for link in graph.links)


def _each(name: str, numbers: Mapping[str, float]) -> list[Row]:
    return [(name, key, number) for key, number in numbers.items()]


def _histogram(samples: Samples) -> tuple[list[tuple[str, float]], float]:
    """Buckets with their upper bounds, and the sum; in seconds."""
    bounds = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
    return [*zip(bounds, samples.at_most(), strict=True)], samples.total / 1000


FAMILIES = (
    Family(
        CounterMetricFamily,
        "stream_seg_frames",
        "Frames by stage and outcome (in: taken from its links; out: yielded).",
        ("stage", "outcome"),
        lambda g: (row for t in g.tasks for row in _each(t.node.name, {"in": t.taken, "out": t.yielded})),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_cards",
        "Frames that a stage yielded and that stand in the place of a picture.",
        ("stage",),
        lambda g: ((task.node.name, task.cards) for task in g.tasks),
    ),
    Family(
        GaugeMetricFamily,
        "stream_seg_fps",
        "Frames per second that a stage yields, over its last frames.",
        ("stage",),
        lambda g: ((task.node.name, task.fps()) for task in g.tasks),
    ),
    Family(
        HistogramMetricFamily,
        "stream_seg_stage_duration_seconds",
        "Time a stage spent on a frame.",
        ("stage",),
        lambda g: ((task.node.name, *_histogram(task.duration_ms)) for task in g.tasks),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_missed_frames",
        "Frames that a source could not deliver, by reason.",
        ("stage", "reason"),
        lambda g: (row for name, source in _sources(g) for row in _each(name, source.missed)),
    ),
    Family(
        GaugeMetricFamily,
        "stream_seg_source_up",
        "1 while a source delivers frames.",
        ("stage",),
        lambda g: ((name, source.up) for name, source in _sources(g)),
    ),
    Family(
        GaugeMetricFamily,
        "stream_seg_source_state",
        "1 for the state that a source is in, 0 for the others.",
        ("stage", "state"),
        lambda g: ((name, state, source.state == state) for name, source in _sources(g) for state in SOURCE_STATES),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_source_stalls",
        "Times that a source gave no new picture, by reason.",
        ("stage", "reason"),
        lambda g: (row for name, source in _sources(g) for row in _each(name, source.stalls)),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_source_reconnects",
        "Times that a source came back, by why it had been away.",
        ("stage", "reason"),
        lambda g: (row for name, source in _sources(g) for row in _each(name, source.reconnects)),
    ),
    Family(
        InfoMetricFamily,
        "stream_seg_engine",
        "What computes the classes; empty before the first frame.",
        ("stage",),
        lambda g: ((name, {} if info is None else vars(info)) for name, info in g.engines().items()),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_key_frames",
        "Frames that the network looked at; it knows the others by motion.",
        ("stage",),
        lambda g: ((name, segment.keys) for name, segment in _segments(g)),
    ),
    Family(
        GaugeMetricFamily,
        "stream_seg_rung",
        "Steps that a stage has gone down to hold its target_ms.",
        ("stage",),
        lambda g: ((name, segment.rung) for name, segment in _segments(g)),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_rung_changes",
        "Changes of the rung by reason (slow: frames came too late; spare: time to spare).",
        ("stage", "reason"),
        lambda g: (row for name, segment in _segments(g) for row in _each(name, segment.changes)),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_resets",
        "Times that smooth forgot the past of a stream, by reason.",
        ("stage", "reason"),
        lambda g: (row for name, smooth in _smooths(g) for row in _each(name, smooth.resets)),
    ),
    Family(
        GaugeMetricFamily,
        "stream_seg_motion_confidence",
        "Mean confidence in the motion to the last frame, 0 where the past was forgotten.",
        ("stage", "stream"),
        _confidences,
    ),
    Family(
        HistogramMetricFamily,
        "stream_seg_frame_age_seconds",
        "Age of a frame, since its capture, when an output had dealt with it.",
        ("stage", "stream"),
        lambda g: ((name, stream, *_histogram(ages.samples)) for name, stream, ages in _ages(g)),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_late_frames",
        "Frames that were older than deadline_ms at an output.",
        ("stage", "stream"),
        lambda g: ((name, stream, ages.late) for name, stream, ages in _ages(g)),
    ),
    Family(
        GaugeMetricFamily,
        "stream_seg_last_frame_timestamp_seconds",
        "When an output had dealt with the last frame, since the Unix epoch; 0 before the first; not of ended sources.",
        ("stage", "stream"),
        lambda g: ((name, stream, ages.last_s) for name, stream, ages in _going_on(g)),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_dropped_frames",
        "Frames that a link dropped, by reason.",
        ("link", "reason"),
        lambda g: (row for name, account in _accounts(g) for row in _each(name, account.dropped)),
    ),
    Family(
        CounterMetricFamily,
        "stream_seg_link_frames",
        "Frames given to a link, and delivered by it.",
        ("link", "outcome"),
        lambda g: (
            row
            for name, account in _accounts(g)
            for row in _each(name, {"entered": account.entered, "delivered": account.delivered})
        ),
    ),
    Family(
        GaugeMetricFamily,
        "stream_seg_queue_depth_frames",
        "Frames in a link, neither delivered nor dropped.",
        ("link",),
        lambda g: ((name, account.in_flight) for name, account in _accounts(g)),
    ),
)
"""Every metric of a graph; docs/metrics.md says the same, which a test sees to."""


LOG = logging.getLogger(__name__)


class Metrics(Collector):
    """The registry of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The counters, gauges and histograms of this moment."""
        return [family.collected(self._graph) for family in FAMILIES]


@contextmanager
def serving(graph: Graph, *, host: str, port: int) -> Iterator[int]:
    """Answer scrapes of a graph at http://HOST:PORT/metrics; gives the port, which is a free one for 0.

    To be entered before the graph starts. Raises ConfigError where the port cannot be had.
    """
    try:
        server = Server(host, port, Metrics(graph).registry)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"metrics: cannot serve on {without_secrets(host)}:{port}: {reason}; choose another metrics.port"
        ) from error
    if not server.private:
        LOG.warning("metrics.host %s: anybody who reaches it may read them; there is no token", without_secrets(host))
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
