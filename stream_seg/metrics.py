"""What Prometheus sees of a running graph. Everything is read from the graph's own books when a scrape comes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from stream_seg.discreet import without_secrets
from stream_seg.errors import ConfigError
from stream_seg.families import FAMILIES
from stream_seg.graph import Graph
from stream_seg.scrapes import Server

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
