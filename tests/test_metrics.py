from __future__ import annotations

import re
from pathlib import Path
from threading import Event
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_seg.config import MetricsConfig
from stream_seg.errors import ConfigError
from stream_seg.graph import Graph
from stream_seg.stage import Frames
from tests.drawn import frame
from tests.graphs import Camera, Ledger, Work, config, line, node

LISTED = Path(__file__).parents[1] / "docs" / "metrics.md"


def scraped(graph: Graph) -> dict[str, float]:
    """Every sample of a scrape: 'name{label="value"}' to its value, histogram buckets left out."""
    with urlopen(f"http://127.0.0.1:{graph.port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        s.name + "".join(f" {k}={v}" for k, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if not s.name.endswith("_bucket")
    }


def test_a_scrape_agrees_with_the_ledger() -> None:
    sink = Ledger()
    with Graph(config(line(Camera(50), Work(), sink), metrics=MetricsConfig(port=0)), live=False) as graph:
        assert graph.wait(10)
        seen = scraped(graph)
    assert len(sink.numbers) == 50
    assert seen["stream_seg_frames_total outcome=out stage=camera"] == 50
    assert seen["stream_seg_frames_total outcome=in stage=sink"] == 50
    assert seen["stream_seg_link_frames_total link=work->sink outcome=delivered"] == 50
    assert seen["stream_seg_queue_depth_frames link=work->sink"] == 0
    assert seen["stream_seg_stage_duration_seconds_count stage=work"] == 50
    assert seen["stream_seg_frame_age_seconds_count stage=sink"] == 50
    assert seen["stream_seg_source_up stage=camera"] == 0


def test_every_series_is_there_before_the_first_frame_and_is_documented() -> None:
    go = Event()

    def waits(_: Frames) -> Frames:
        go.wait(10)
        yield frame(0)

    nodes = [
        node("camera", "synthetic", waits),
        node("segment", "segment", Work(), "camera"),
        node("sink", "write", Ledger(), "segment"),
    ]
    with Graph(config(nodes, metrics=MetricsConfig(port=0)), live=False) as graph:
        before = scraped(graph)
        go.set()
        assert graph.wait(10)
        after = scraped(graph)
    assert before.keys() == after.keys()
    assert before["stream_seg_frames_total outcome=out stage=camera"] == 0
    assert after["stream_seg_frames_total outcome=out stage=camera"] == 1
    names = {re.sub(r"_(count|sum|created)$", "", series.split(" ")[0]) for series in after}
    documented = set(re.findall(r"`((?:stream_seg|process)_[a-z_]+)`", LISTED.read_text(encoding="utf-8")))
    assert names == documented


def test_a_port_in_use_is_refused() -> None:
    with Graph(config(line(Camera(1), Work(), Ledger()), metrics=MetricsConfig(port=0)), live=False) as first:
        assert first.port is not None
        second = Graph(config(line(Camera(1), Work(), Ledger()), metrics=MetricsConfig(port=first.port)), live=False)
        with pytest.raises(ConfigError, match=f"cannot serve on 127.0.0.1:{first.port}"), second:
            pass
