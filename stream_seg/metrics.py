"""What Prometheus sees of a running graph. Counters are read from the graph's own books when a scrape comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from stream_seg.errors import ConfigError
from stream_seg.graph import Graph

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.033, 0.05, 0.066, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; dense around one, one and a half, two and three frames at 30 frames/s."""


class Metrics(Collector):
    """The registry of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.registry = CollectorRegistry()
        duration = Histogram(
            "stream_seg_stage_duration_seconds",
            "Time a stage spent on a frame.",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        age = Histogram(
            "stream_seg_frame_age_seconds",
            "Age of a frame, since its capture, when an output had dealt with it.",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        for task in graph.tasks:
            task.observe_duration = duration.labels(task.node.name).observe
            if task.is_sink:
                task.observe_age = age.labels(task.node.name).observe
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The counters and gauges of this moment."""
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
        for task in self._graph.tasks:
            frames.add_metric([task.node.name, "in"], task.taken)
            frames.add_metric([task.node.name, "out"], task.yielded)
            fps.add_metric([task.node.name], task.fps())
            if task.is_source:
                up.add_metric([task.node.name], task.up)
                for reason, number in task.missed.items():
                    missed.add_metric([task.node.name, reason], number)
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
        engine = InfoMetricFamily(
            "stream_seg_engine", "What computes the classes; empty before the first frame.", labels=["stage"]
        )
        for name, info in self._graph.engines().items():
            engine.add_metric([name], {} if info is None else vars(info))
        return [frames, missed, fps, up, resets, confidence, entered, dropped, depth, engine]


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
