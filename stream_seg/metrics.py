"""What Prometheus sees of a running graph. Counters are read from the graph's own books when a scrape comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
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
from stream_seg.frame import STATES
from stream_seg.graph import Graph
from stream_seg.samples import BOUNDS_MS, Samples


class Metrics(Collector):
    """The registry of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The counters, gauges and histograms of this moment."""
        return [*self._of_stages(), *self._of_outputs(), *self._of_links()]

    def _of_stages(self) -> Iterable[Metric]:
        frames = CounterMetricFamily(
            "stream_seg_frames",
            "Frames by stage and outcome (in: taken from its links; out: yielded).",
            labels=["stage", "outcome"],
        )
        missed = CounterMetricFamily(
            "stream_seg_missed_frames", "Frames that a source could not deliver, by reason.", labels=["stage", "reason"]
        )
        fps = GaugeMetricFamily(
            "stream_seg_fps", "Frames per second that a stage yields, over its last frames.", labels=["stage"]
        )
        up = GaugeMetricFamily("stream_seg_source_up", "1 while a source delivers frames.", labels=["stage"])
        duration = HistogramMetricFamily(
            "stream_seg_stage_duration_seconds", "Time a stage spent on a frame.", labels=["stage"]
        )
        for task in self._graph.tasks:
            frames.add_metric([task.node.name, "in"], task.taken)
            frames.add_metric([task.node.name, "out"], task.yielded)
            fps.add_metric([task.node.name], task.fps())
            duration.add_metric([task.node.name], *_histogram(task.duration_ms))
            if task.is_source:
                up.add_metric([task.node.name], task.up)
                for reason, number in task.missed.items():
                    missed.add_metric([task.node.name, reason], number)
        engine = InfoMetricFamily(
            "stream_seg_engine", "What computes the classes; empty before the first frame.", labels=["stage"]
        )
        for name, info in self._graph.engines().items():
            engine.add_metric([name], {} if info is None else vars(info))
        return [
            frames,
            missed,
            fps,
            up,
            duration,
            engine,
            *self._of_sources(),
            *self._of_key_frames(),
            *self._of_smoothing(),
        ]

    def _of_key_frames(self) -> Iterable[Metric]:
        keys = CounterMetricFamily(
            "stream_seg_key_frames",
            "Frames that the network looked at; it knows the others by motion.",
            labels=["stage"],
        )
        rung = GaugeMetricFamily(
            "stream_seg_rung", "Steps that a stage has gone down to hold its target_ms.", labels=["stage"]
        )
        changes = CounterMetricFamily(
            "stream_seg_rung_changes",
            "Changes of the rung by reason (slow: frames came too late; spare: time to spare).",
            labels=["stage", "reason"],
        )
        for task in self._graph.tasks:
            if task.node.kind == "segment":
                keys.add_metric([task.node.name], task.keys)
                rung.add_metric([task.node.name], task.rung)
                for reason, number in task.changes.items():
                    changes.add_metric([task.node.name, reason], number)
        return [keys, rung, changes]

    def _of_smoothing(self) -> Iterable[Metric]:
        resets = CounterMetricFamily(
            "stream_seg_resets", "Times that smooth forgot the past of a stream, by reason.", labels=["stage", "reason"]
        )
        confidence = GaugeMetricFamily(
            "stream_seg_motion_confidence",
            "Mean confidence in the motion to the last frame, 0 where the past was forgotten.",
            labels=["stage", "stream"],
        )
        streams = [getattr(task.node.stage, "stream", task.node.name) for task in self._graph.tasks if task.is_source]
        for task in self._graph.tasks:
            if task.node.kind == "smooth":
                for reason, number in task.resets.items():
                    resets.add_metric([task.node.name, reason], number)
                for stream in streams:
                    confidence.add_metric([task.node.name, stream], task.confidence.get(stream, 0.0))
        return [resets, confidence]

    def _of_sources(self) -> Iterable[Metric]:
        state = GaugeMetricFamily(
            "stream_seg_source_state",
            "1 for the state that a source is in, 0 for the others.",
            labels=["stage", "state"],
        )
        stalls = CounterMetricFamily(
            "stream_seg_source_stalls",
            "Times that a source gave no new picture, by reason.",
            labels=["stage", "reason"],
        )
        reconnects = CounterMetricFamily(
            "stream_seg_source_reconnects",
            "Times that a source came back, by why it had been away.",
            labels=["stage", "reason"],
        )
        for task in self._graph.tasks:
            if not task.is_source:
                continue
            for name in STATES:
                state.add_metric([task.node.name, name], task.state == name)
            for family, numbers in ((stalls, task.stalls), (reconnects, task.reconnects)):
                for reason, number in tuple(numbers.items()):
                    family.add_metric([task.node.name, reason], number)
        return [state, stalls, reconnects]

    def _of_outputs(self) -> Iterable[Metric]:
        labels = ["stage", "stream"]
        age = HistogramMetricFamily(
            "stream_seg_frame_age_seconds",
            "Age of a frame, since its capture, when an output had dealt with it.",
            labels=labels,
        )
        late = CounterMetricFamily(
            "stream_seg_late_frames", "Frames that were older than deadline_ms at an output.", labels=labels
        )
        last = GaugeMetricFamily(
            "stream_seg_last_frame_timestamp_seconds",
            "When an output had dealt with the last frame, since the Unix epoch; 0 before the first.",
            labels=labels,
        )
        for task in self._graph.tasks:
            for stream, ages in tuple(task.ages.items()) if task.is_sink else ():
                age.add_metric([task.node.name, stream], *_histogram(ages.samples))
                late.add_metric([task.node.name, stream], ages.late)
                last.add_metric([task.node.name, stream], ages.last_s)
        return [age, late, last]

    def _of_links(self) -> Iterable[Metric]:
        dropped = CounterMetricFamily(
            "stream_seg_dropped_frames", "Frames that a link dropped, by reason.", labels=["link", "reason"]
        )
        entered = CounterMetricFamily(
            "stream_seg_link_frames", "Frames given to a link, and delivered by it.", labels=["link", "outcome"]
        )
        depth = GaugeMetricFamily(
            "stream_seg_queue_depth_frames", "Frames in a link, neither delivered nor dropped.", labels=["link"]
        )
        for link in self._graph.links:
            account = link.account()
            entered.add_metric([link.name, "entered"], account.entered)
            entered.add_metric([link.name, "delivered"], account.delivered)
            depth.add_metric([link.name], account.in_flight)
            for reason, number in account.dropped.items():
                dropped.add_metric([link.name, reason], number)
        return [entered, dropped, depth]


def _histogram(samples: Samples) -> tuple[list[tuple[str, float]], float]:
    """Buckets with their upper bounds, and the sum; in seconds."""
    bounds = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
    return [*zip(bounds, samples.at_most(), strict=True)], samples.total / 1000


@contextmanager
def serving(graph: Graph, *, host: str, port: int) -> Iterator[int]:
    """Answer scrapes of a graph at http://HOST:PORT/metrics; gives the port, which is a free one for 0.

    To be entered before the graph starts. Raises ConfigError where the port cannot be had.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=Metrics(graph).registry)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"metrics: cannot serve on {host}:{port}: {reason}; choose another metrics.port") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
