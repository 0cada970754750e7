"""Formats of a scrape, for the page and the metrics server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

Encoder = Callable[[Collector], bytes]


def choose_format(accept: str) -> tuple[Encoder, str]:
    """Return the encoder and the content type for an `Accept` header: OpenMetrics, or else Prometheus' text format."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # its version is no number
        return choose_encoder("")
