"""The Prometheus metrics of a running graph, read from its counters at each scrape."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from stream_seg.frame import SOURCE_STATES
from stream_seg.runtime.counters import LabelCounters, SmoothingCounters, SourceCounters
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.histogram import BOUNDS_MS, Ages, Samples
from stream_seg.runtime.link_stats import LinkCounts

Row: TypeAlias = tuple[Any, ...]
"""The values of a family's labels, then the measured value."""


class Metrics(Collector):
    """Collects the metrics of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def collect(self) -> Iterable[Metric]:
        """Return the current counters, gauges and histograms."""
        return [family.collect(self._graph) for family in FAMILIES]


def register(graph: Graph) -> None:
    """Add the metrics of a graph and of its process to the graph's registry."""
    ProcessCollector(registry=graph.registry)
    graph.registry.register(Metrics(graph))


@dataclass(frozen=True)
class Family:
    """A metric family: its Prometheus type, name, help and labels, and a function that reads its values."""

    type: Callable[..., Any]
    name: str
    labels: tuple[str, ...]
    help: str
    rows: Callable[[Graph], Iterable[Row]]

    def collect(self, graph: Graph) -> Metric:
        """Return the metric with its current values."""
        metric: Metric = self.type(self.name, self.help, labels=self.labels)
        count = len(self.labels)
        for row in self.rows(graph):
            metric.add_metric(row[:count], *row[count:])  # type: ignore[attr-defined] # every family type has it
        return metric


def _sources(graph: Graph) -> Iterator[tuple[str, SourceCounters]]:
    return ((worker.node.name, worker.source) for worker in graph.workers if worker.is_source)


def _labels(graph: Graph) -> Iterator[tuple[str, LabelCounters]]:
    return ((worker.node.name, worker.labels) for worker in graph.workers if "labels" in worker.traits.produces)


def _engines(graph: Graph) -> Iterator[tuple[str, dict[str, str]]]:
    for name, engine in graph.engines().items():
        yield name, {} if engine is None else {key: str(value) for key, value in vars(engine).items()}


def _smoothing(graph: Graph) -> Iterator[tuple[str, SmoothingCounters]]:
    return ((w.node.name, w.smoothing) for w in graph.workers if "smoothing" in w.traits.produces)


def _confidences(graph: Graph) -> Iterator[tuple[str, str, float]]:
    for worker in graph.workers:
        if "smoothing" in worker.traits.produces:
            confidence = worker.smoothing.confidence
            yield from ((worker.node.name, stream, confidence.get(stream, 0.0)) for stream in worker.streams())


def _ages(graph: Graph) -> Iterator[tuple[str, str, Ages]]:
    for worker in graph.workers:
        if worker.is_output:
            yield from ((worker.node.name, stream, ages) for stream, ages in tuple(worker.ages.items()))


def _ages_of_running_sources(graph: Graph) -> Iterator[tuple[str, str, Ages]]:
    """Yield the ages of streams whose source has not ended."""
    ended = _ended_streams(graph)
    return (row for row in _ages(graph) if row[1] not in ended)


def _ended_streams(graph: Graph) -> set[str]:
    return {stream for w in graph.workers if w.is_source and w.source.state == "ended" for stream in w.ages}


def _class_shares(graph: Graph) -> Iterator[tuple[str, str, str, float]]:
    now_s, ended = time.monotonic(), _ended_streams(graph)
    for worker in graph.workers:
        for stream in worker.ages if worker.is_output else ():
            if stream not in ended:
                shares = worker.class_shares.measure(stream, now_s)
                yield from ((worker.node.name, stream, name, share) for name, share in shares.items())


def _link_counts(graph: Graph) -> Iterator[tuple[str, LinkCounts]]:
    return ((stats.name, stats.counts()) for stats in graph.link_stats)


def _each(name: str, numbers: Mapping[str, float]) -> list[Row]:
    return [(name, key, number) for key, number in numbers.items()]


def _histogram(samples: Samples) -> tuple[list[tuple[str, float]], float]:
    """Return the buckets by upper bound, and the sum, both in seconds."""
    bounds = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
    return [*zip(bounds, samples.at_most(), strict=True)], samples.total / 1000


# a table, three lines to a metric
# fmt: off
FAMILIES = (
    Family(CounterMetricFamily, "stream_seg_frames", ("stage", "outcome"),
           "Frames by stage and outcome (in: taken from its links; out: yielded).",
           lambda g: (row for w in g.workers for row in _each(w.node.name, {"in": w.taken, "out": w.yielded}))),
    Family(CounterMetricFamily, "stream_seg_placeholder_frames", ("stage",),
           "Frames that a stage yielded in place of a missing image.",
           lambda g: ((w.node.name, w.placeholders) for w in g.workers)),
    Family(GaugeMetricFamily, "stream_seg_fps", ("stage",),
           "Images per second that a stage yields, over the last two seconds.",
           lambda g: ((w.node.name, w.fps()) for w in g.workers)),
    Family(GaugeMetricFamily, "stream_seg_stage_stalled", ("stage",),
           "1 while a stage makes no progress.",
           lambda g: ((w.node.name, w.node.name in g.watchdog.stalls) for w in g.workers)),
    Family(HistogramMetricFamily, "stream_seg_stage_duration_seconds", ("stage",),
           "Time from taking a frame to yielding it.",
           lambda g: ((w.node.name, *_histogram(w.duration_ms)) for w in g.workers)),
    Family(CounterMetricFamily, "stream_seg_missed_frames", ("stage", "reason"),
           "Frames that a source could not deliver, by reason.",
           lambda g: (row for name, source in _sources(g) for row in _each(name, source.missed))),
    Family(GaugeMetricFamily, "stream_seg_source_up", ("stage",),
           "1 while a source delivers frames.",
           lambda g: ((name, source.up) for name, source in _sources(g))),
    Family(GaugeMetricFamily, "stream_seg_source_state", ("stage", "state"),
           "1 for the current state of a source, 0 for the other states.",
           lambda g: ((name, state, s.state == state) for name, s in _sources(g) for state in SOURCE_STATES)),
    Family(CounterMetricFamily, "stream_seg_source_stalls", ("stage", "reason"),
           "Times that a source stopped giving new images, by reason.",
           lambda g: (row for name, source in _sources(g) for row in _each(name, source.stalls))),
    Family(CounterMetricFamily, "stream_seg_source_reconnects", ("stage", "reason"),
           "Times that a source came back, by the reason of its outage.",
           lambda g: (row for name, source in _sources(g) for row in _each(name, source.reconnects))),
    Family(InfoMetricFamily, "stream_seg_engine", ("stage",),
           "The engine that computes the labels; empty before the first frame.",
           _engines),
    Family(CounterMetricFamily, "stream_seg_key_frames", ("stage",),
           "Frames that the network processed; the labels of the others are propagated along the motion.",
           lambda g: ((name, labels.keys) for name, labels in _labels(g))),
    Family(GaugeMetricFamily, "stream_seg_quality_level", ("stage",),
           "Current quality level; 0 is full quality, each level above it costs less time.",
           lambda g: ((name, labels.quality_level) for name, labels in _labels(g))),
    Family(CounterMetricFamily, "stream_seg_quality_changes", ("stage", "reason"),
           "Changes of the quality level by reason (slow: frames came too late; spare: time to spare).",
           lambda g: (row for name, labels in _labels(g) for row in _each(name, labels.changes))),
    Family(CounterMetricFamily, "stream_seg_resets", ("stage", "reason"),
           "Times that smoothing discarded the past of a stream, by reason.",
           lambda g: (row for name, smoothing in _smoothing(g) for row in _each(name, smoothing.resets))),
    Family(GaugeMetricFamily, "stream_seg_motion_confidence", ("stage", "stream"),
           "Mean confidence in the motion to the last frame, 0 after a reset.", _confidences),
    Family(HistogramMetricFamily, "stream_seg_frame_age_seconds", ("stage", "stream"),
           "Age of a frame, since its capture, when an output finished it.",
           lambda g: ((name, stream, *_histogram(ages.samples)) for name, stream, ages in _ages(g))),
    Family(CounterMetricFamily, "stream_seg_late_frames", ("stage", "stream"),
           "Frames that were older than deadline_ms when an output finished them.",
           lambda g: ((name, stream, ages.late) for name, stream, ages in _ages(g))),
    Family(GaugeMetricFamily, "stream_seg_last_frame_timestamp_seconds", ("stage", "stream"),
           "Unix time at which an output finished its last frame; 0 before the first; absent for ended sources.",
           lambda g: ((name, stream, ages.last_s) for name, stream, ages in _ages_of_running_sources(g))),
    Family(GaugeMetricFamily, "stream_seg_class_share", ("stage", "stream", "class"),
           "Share of the image that a class covers in the newest frame of an output.", _class_shares),
    Family(CounterMetricFamily, "stream_seg_dropped_frames", ("link", "reason"),
           "Frames that a link dropped, by reason.",
           lambda g: (row for name, counts in _link_counts(g) for row in _each(name, counts.dropped))),
    Family(CounterMetricFamily, "stream_seg_link_frames", ("link", "outcome"),
           "Frames that entered a link, and frames that it delivered.",
           lambda g: (row for name, counts in _link_counts(g)
                      for row in _each(name, {"entered": counts.entered, "delivered": counts.delivered}))),
    Family(GaugeMetricFamily, "stream_seg_queue_depth_frames", ("link",),
           "Frames in a link, neither delivered nor dropped.",
           lambda g: ((name, counts.in_flight) for name, counts in _link_counts(g))),
)
# fmt: on
"""Every metric of a graph. A test keeps docs/metrics.md equal to this table."""
