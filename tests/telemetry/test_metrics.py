from __future__ import annotations

import gzip
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread, active_count
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import ConfigError
from stream_seg.frame import EngineInfo, Semantic, Signal, Temporal
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from stream_seg.stages.smooth import RESETS
from stream_seg.telemetry import server as scrapes
from stream_seg.telemetry.metrics import serving
from tests.support.fake_stages import Camera, Ledger, Work, config, line, node
from tests.support.flood import closed, connected
from tests.support.frames import frame

LISTED = Path(__file__).parents[2] / "docs" / "metrics.md"


def scraped(port: int) -> dict[str, float]:
    """Every sample of a scrape: 'name{label="value"}' to its value, histogram buckets left out."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        s.name + "".join(f" {k}={v}" for k, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if not s.name.endswith("_bucket")
    }


def test_a_scrape_agrees_with_the_ledger() -> None:
    sink = Ledger()
    graph = Graph(config(line(Camera(50), Work(), sink)), live=False)
    with serving(graph, host="127.0.0.1", port=0) as port, graph:
        assert graph.wait(10)
        seen = scraped(port)
    assert len(sink.numbers) == 50
    assert seen["stream_seg_frames_total outcome=out stage=camera"] == 50
    assert seen["stream_seg_frames_total outcome=in stage=sink"] == 50
    assert seen["stream_seg_link_frames_total link=work->sink outcome=delivered"] == 50
    assert seen["stream_seg_queue_depth_frames link=work->sink"] == 0
    assert seen["stream_seg_stage_duration_seconds_count stage=work"] == 50
    assert seen["stream_seg_frame_age_seconds_count stage=sink stream=camera"] == 50
    assert seen["stream_seg_source_up stage=camera"] == 0


def test_late_frames_are_counted_by_stream() -> None:
    """Two cameras into one slow output: its frames are late, and the ages of each stream are its own."""
    cameras = [node(name, "synthetic", Camera(number, stream=name)) for name, number in (("front", 4), ("rear", 2))]
    sink = Ledger(delay_s=0.02)
    nodes = [*cameras, node("sink", "write", sink, "front", "rear")]
    strict, lenient = (replace(config(nodes), deadline_ms=deadline_ms) for deadline_ms in (15.0, 10_000.0))
    for checked, late in ((strict, {"front": 4, "rear": 2}), (lenient, {"front": 0, "rear": 0})):
        graph, began_s = Graph(checked, live=False), time.time()
        with serving(graph, host="127.0.0.1", port=0) as port, graph:
            assert graph.wait(10)
            seen = scraped(port)
            ages = {stream: graph.tasks[-1].ages[stream].last_s for stream in ("front", "rear")}
        for stream, frames in (("front", 4), ("rear", 2)):
            labels = f"stage=sink stream={stream}"
            assert seen[f"stream_seg_late_frames_total {labels}"] == late[stream]
            assert seen[f"stream_seg_frame_age_seconds_count {labels}"] == frames
            assert began_s <= ages[stream] <= time.time()
            assert f"stream_seg_last_frame_timestamp_seconds {labels}" not in seen  # it owes no further one
            assert seen[f"stream_seg_source_state stage={stream} state=ended"] == 1


def test_every_series_is_there_before_the_first_frame_and_is_documented() -> None:
    go = Event()

    def waits(_: Frames) -> Frames:
        go.wait(10)
        yield frame(0)

    nodes = [
        node("camera", "synthetic", waits),
        node("segment", "segment", Work(), "camera"),
        node("smooth", "smooth", Work(), "segment"),
        node("sink", "write", Ledger(), "smooth"),
    ]
    graph = Graph(config(nodes), live=False)
    with serving(graph, host="127.0.0.1", port=0) as port, graph:
        before = scraped(port)
        go.set()
        assert graph.wait(10)
        after = scraped(port)
    assert {name for name in before if "last_frame" in name} == before.keys() - after.keys()  # the source has ended
    assert after.keys() - before.keys() == set()
    assert not any("reason=frozen" in name for name in after if "reconnects" in name)
    assert before["stream_seg_frames_total outcome=out stage=camera"] == 0
    assert after["stream_seg_frames_total outcome=out stage=camera"] == 1
    names = {re.sub(r"_(count|sum|created)$", "", series.split(" ")[0]) for series in before}
    documented = set(re.findall(r"`((?:stream_seg|process)_[a-z_]+)`", LISTED.read_text(encoding="utf-8")))
    assert names == documented


def test_resets_and_confidence_are_told_by_the_stage_that_smooths() -> None:
    def temporal(frames: Frames) -> Frames:
        for taken in frames:
            reset = {0: "start", 2: "cut"}.get(taken.seq)
            yield replace(taken, temporal=Temporal(reset=reset, confidence=None if reset else 0.75))
            if taken.seq == away:
                yield replace(taken, signal=Signal("down", "no data", 0))

    away = -1

    graph = Graph(config(line(Camera(4), temporal, Ledger())), live=False)
    with serving(graph, host="127.0.0.1", port=0) as port, graph:
        assert graph.wait(10)
        seen = scraped(port)
    resets = {reason: seen[f"stream_seg_resets_total reason={reason} stage=work"] for reason in RESETS}
    assert resets == {"start": 1, "gap": 0, "back": 0, "shape": 0, "cut": 1}
    assert seen["stream_seg_motion_confidence stage=work stream=camera"] == 0.75
    assert "stream_seg_motion_confidence stage=sink stream=camera" not in seen
    away = 3
    graph = Graph(config(line(Camera(4), temporal, Ledger())), live=False)
    with serving(graph, host="127.0.0.1", port=0) as port, graph:
        assert graph.wait(10)
        assert scraped(port)["stream_seg_motion_confidence stage=work stream=camera"] == 0


def test_only_streams_that_reach_it_have_a_series_of_smooth() -> None:
    cameras = [node(name, "synthetic", Camera(2, stream=name)) for name in ("front", "rear")]
    smooths = [node(f"smooth {one.name}", "smooth", Work(), one.name) for one in cameras]
    sink = node("sink", "write", Ledger(), *(one.name for one in smooths))
    graph = Graph(config([*cameras, *smooths, sink]), live=False)
    with serving(graph, host="127.0.0.1", port=0) as port, graph:
        assert graph.wait(10)
        confidences = [name for name in scraped(port) if "motion_confidence" in name]
    assert sorted(confidences) == [
        f"stream_seg_motion_confidence stage=smooth {name} stream={name}" for name in ("front", "rear")
    ]


def test_the_rung_and_its_changes_are_told_by_the_stage_that_segments() -> None:
    def segment(frames: Frames) -> Frames:
        engine = EngineInfo("road", "openvino", "int8", "CPU")
        said = Semantic(CAMVID, engine, (4, 6), verdict=np.zeros((4, 6), np.uint8))
        for taken in frames:
            change = {1: "slow", 3: "slow"}.get(taken.seq)
            yield replace(taken, semantic=said, temporal=Temporal(rung=(taken.seq + 1) // 2, change=change))

    nodes = [
        node("camera", "synthetic", Camera(4)),
        node("segment", "segment", segment, "camera"),
        node("sink", "write", Ledger(), "segment"),
    ]
    graph = Graph(config(nodes), live=False)
    with serving(graph, host="127.0.0.1", port=0) as port, graph:
        assert graph.wait(10)
        seen = scraped(port)
    assert seen["stream_seg_rung stage=segment"] == 2
    assert seen["stream_seg_rung_changes_total reason=slow stage=segment"] == 2
    assert seen["stream_seg_rung_changes_total reason=spare stage=segment"] == 0


def test_a_port_in_use_is_refused() -> None:
    graph = Graph(config(line(Camera(1), Work(), Ledger())), live=False)
    with serving(graph, host="127.0.0.1", port=0) as port:
        refused = pytest.raises(ConfigError, match=f"cannot serve on 127.0.0.1:{port}")
        with refused, serving(graph, host="127.0.0.1", port=port):
            pass


def idle() -> Graph:
    return Graph(config(line(Camera(1), Work(), Ledger())), live=False)


def asked_as(name: str, port: int) -> int:
    """The status of a scrape that calls the host by that name."""
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}/metrics", headers={"Host": name}), timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def until(there: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_slow_connections_are_few_and_end_and_scrapes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    process, most = psutil.Process(), scrapes.MAX_CONNECTIONS
    with serving(idle(), host="127.0.0.1", port=0) as port:
        threads, files = active_count(), process.num_fds() + 60
        links = [connected(port, b"GET /metrics HTTP/1.1\r\nHost: 127") for _ in range(60)]
        try:
            assert "stream_seg_fps stage=camera" in scraped(port)
            until(lambda: active_count() <= threads + most and process.num_fds() <= files + most, within_s=2)
            assert not all(map(closed, links))  # who is slow is not cut off before there is need
            monkeypatch.setattr(scrapes, "LIMIT_S", 0.2)
            until(lambda: all(map(closed, links)), within_s=10)
            until(lambda: active_count() <= threads and process.num_fds() <= files, within_s=10)
        finally:
            for link in links:
                link.close()
        assert "stream_seg_fps stage=camera" in scraped(port)


class Gate(Collector):
    """Metrics that a scrape waits for until they may go."""

    def __init__(self) -> None:
        self.asked, self.go = Event(), Event()

    def collect(self) -> list[Metric]:
        """None, when they may go."""
        self.asked.set()
        self.go.wait(30)
        return []


def test_what_is_being_answered_is_not_closed_for_a_newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrapes, "LIMIT_S", 60.0)
    gate, registry = Gate(), CollectorRegistry()
    with scrapes.Server("127.0.0.1", 0, registry) as server:
        registry.register(gate)
        thread = Thread(target=server.serve_forever)
        thread.start()
        links = [connected(server.server_port, b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")]
        try:
            assert gate.asked.wait(10)
            links += [connected(server.server_port, b"GET /metrics") for _ in range(scrapes.MAX_CONNECTIONS)]
            until(lambda: any(map(closed, links)), within_s=10)
            assert not closed(links[0])
            gate.go.set()
            links[0].settimeout(10)
            assert b" 200 OK" in links[0].recv(64)
        finally:
            gate.go.set()
            for link in links:
                link.close()
            server.shutdown()
            thread.join()


def test_a_drop_now_and_then_does_not_keep_a_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrapes, "LIMIT_S", 0.5)
    with serving(idle(), host="127.0.0.1", port=0) as port, connected(port, b"GET /metrics") as link:
        end = time.monotonic() + 10
        while not closed(link):
            assert time.monotonic() < end
            link.send(b"x")
            time.sleep(0.05)


def test_a_foreign_name_is_refused() -> None:
    with serving(idle(), host="127.0.0.1", port=0) as port:
        assert asked_as("evil.example", port) == asked_as("localhost.evil.example:80", port) == 421
        assert asked_as("", port) == 421
        assert asked_as(f"localhost:{port}", port) == asked_as(f"[::1]:{port}", port) == 200


def test_another_address_answers_to_every_name_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with serving(idle(), host="127.0.0.1", port=0):
        assert not caplog.messages
    with serving(idle(), host="0.0.0.0", port=0) as port:
        assert caplog.messages == ["metrics.host 0.0.0.0: anybody who reaches it may read them; there is no token"]
        assert asked_as("camera-box", port) == 200


def test_the_form_of_a_scrape() -> None:
    with serving(idle(), host="127.0.0.1", port=0) as port:
        address = f"http://127.0.0.1:{port}/metrics"
        with urlopen(Request(address, headers={"Accept-Encoding": "gzip"}), timeout=5) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            assert b"# TYPE stream_seg_fps gauge" in gzip.decompress(answer.read())
        openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
        with urlopen(Request(address, headers=openmetrics), timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            assert answer.read().endswith(b"# EOF\n")
