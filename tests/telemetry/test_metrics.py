from __future__ import annotations

import gzip
import logging
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread, active_count
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from stream_seg.config.document import METRICS_TOKEN_ENV, MetricsConfig
from stream_seg.config.graph_file import check
from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import ConfigError
from stream_seg.frame import RESETS, EngineInfo, Semantic, Signal, Temporal
from stream_seg.ops import labels
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from stream_seg.telemetry import metrics
from stream_seg.telemetry import server as metrics_server
from stream_seg.telemetry.metrics import register
from stream_seg.telemetry.server import serve_metrics
from stream_seg.types import VOID
from stream_seg.web.access import MAX_FAILURES
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config, make_node
from tests.support.flood import is_closed, open_connection
from tests.support.frames import make_frame
from tests.support.program import make_certificate

METRICS_PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@contextmanager
def serving(graph: Graph, **keys: object) -> Iterator[int]:
    """Register and serve the metrics of a graph on a free port; yield the port. `keys` are those of `metrics`."""
    register(graph)
    with serve_metrics(graph, MetricsConfig.model_validate({"port": 0, **keys})) as url:
        port = urlsplit(url).port
        assert port is not None
        yield port


def scrape(port: int) -> dict[str, float]:
    """Return the samples of a scrape without histogram buckets, by 'name label=value ...' with sorted labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    return {
        s.name + "".join(f" {k}={v}" for k, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if not s.name.endswith("_bucket")
    }


def test_a_scrape_agrees_with_the_frames_that_an_output_received() -> None:
    sink = Ledger()
    graph = Graph(make_config(make_chain(Camera(50), Work(), sink)))
    with serving(graph) as port, graph:
        assert graph.wait(10)
        samples = scrape(port)
    assert len(sink.numbers) == 50
    assert samples["stream_seg_frames_total outcome=out stage=camera"] == 50
    assert samples["stream_seg_frames_total outcome=in stage=sink"] == 50
    assert samples["stream_seg_link_frames_total link=work->sink outcome=delivered"] == 50
    assert samples["stream_seg_queue_depth_frames link=work->sink"] == 0
    assert samples["stream_seg_stage_duration_seconds_count stage=work"] == 50
    assert samples["stream_seg_frame_age_seconds_count stage=sink stream=camera"] == 50
    assert samples["stream_seg_source_up stage=camera"] == 0


def test_late_frames_are_counted_by_stream() -> None:
    """Two cameras feed one slow output: its frames are late, and ages are counted by stream."""
    cameras = [make_node(name, "source", Camera(number, stream=name)) for name, number in (("front", 4), ("rear", 2))]
    sink = Ledger(delay_s=0.02)
    nodes = [*cameras, make_node("sink", "output", sink, "front", "rear")]
    strict, lenient = (replace(make_config(nodes), deadline_ms=deadline_ms) for deadline_ms in (15.0, 10_000.0))
    for deadline_config, late in ((strict, {"front": 4, "rear": 2}), (lenient, {"front": 0, "rear": 0})):
        graph, began_s = Graph(deadline_config), time.time()
        with serving(graph) as port, graph:
            assert graph.wait(10)
            samples = scrape(port)
            ages = {stream: graph.workers[-1].ages[stream].last_s for stream in ("front", "rear")}
        for stream, frames in (("front", 4), ("rear", 2)):
            labels = f"stage=sink stream={stream}"
            assert samples[f"stream_seg_late_frames_total {labels}"] == late[stream]
            assert samples[f"stream_seg_frame_age_seconds_count {labels}"] == frames
            assert began_s <= ages[stream] <= time.time()
            assert f"stream_seg_last_frame_timestamp_seconds {labels}" not in samples  # its source has ended
            assert samples[f"stream_seg_source_state stage={stream} state=ended"] == 1


def test_every_series_exists_before_the_first_frame_and_is_documented() -> None:
    release = Event()

    def wait_for_release(_: Frames) -> Frames:
        release.wait(10)
        yield make_frame(0)

    nodes = [
        make_node("camera", "source", wait_for_release),
        make_node("segment", "segment", Work(), "camera"),
        make_node("smooth", "smooth", Work(), "segment"),
        make_node("sink", "output", Ledger(), "smooth"),
    ]
    graph = Graph(make_config(nodes))
    with serving(graph) as port, graph:
        before = scrape(port)
        release.set()
        assert graph.wait(10)
        after = scrape(port)
    assert {name for name in before if "last_frame" in name} == before.keys() - after.keys()  # the source has ended
    assert after.keys() - before.keys() == set()
    assert not any("reason=frozen" in name for name in after if "reconnects" in name)
    assert before["stream_seg_frames_total outcome=out stage=camera"] == 0
    assert after["stream_seg_frames_total outcome=out stage=camera"] == 1
    names = {re.sub(r"_(count|sum|created)$", "", series.split(" ")[0]) for series in before}
    documented = set(re.findall(r"`((?:stream_seg|process)_[a-z_]+)`", METRICS_PAGE.read_text(encoding="utf-8")))
    assert documented - names == {"stream_seg_class_share"}  # from the first frame with classes on
    assert names <= documented


def test_a_smoothing_stage_has_resets_and_confidence() -> None:
    def smooth(frames: Frames) -> Frames:
        for received in frames:
            reset = {0: "start", 2: "cut"}.get(received.seq)
            yield replace(received, temporal=Temporal(reset=reset, confidence=None if reset else 0.75))
            if received.seq == outage_seq:
                yield replace(received, signal=Signal("down", "no data", 0))

    outage_seq = -1
    graph = Graph(make_config(make_chain(Camera(4), smooth, Ledger())))
    with serving(graph) as port, graph:
        assert graph.wait(10)
        samples = scrape(port)
    resets = {reason: samples[f"stream_seg_resets_total reason={reason} stage=work"] for reason in RESETS}
    assert resets == {"start": 1, "gap": 0, "back": 0, "shape": 0, "cut": 1}
    assert samples["stream_seg_motion_confidence stage=work stream=camera"] == 0.75
    assert "stream_seg_motion_confidence stage=sink stream=camera" not in samples
    outage_seq = 3
    graph = Graph(make_config(make_chain(Camera(4), smooth, Ledger())))
    with serving(graph) as port, graph:
        assert graph.wait(10)
        assert scrape(port)["stream_seg_motion_confidence stage=work stream=camera"] == 0


def test_a_smoothing_stage_has_series_only_of_streams_that_reach_it() -> None:
    cameras = [make_node(name, "source", Camera(2, stream=name)) for name in ("front", "rear")]
    filters = [make_node(f"smooth {camera.name}", "smooth", Work(), camera.name) for camera in cameras]
    sink = make_node("sink", "output", Ledger(), *(smooth.name for smooth in filters))
    graph = Graph(make_config([*cameras, *filters, sink]))
    with serving(graph) as port, graph:
        assert graph.wait(10)
        confidences = [name for name in scrape(port) if "motion_confidence" in name]
    assert sorted(confidences) == [
        f"stream_seg_motion_confidence stage=smooth {name} stream={name}" for name in ("front", "rear")
    ]


def test_a_labelling_stage_has_a_quality_level_and_its_changes() -> None:
    def segment(frames: Frames) -> Frames:
        engine = EngineInfo("road", "openvino", "int8", "CPU")
        semantic = Semantic(CAMVID, engine, (4, 6), label_map=np.zeros((4, 6), np.uint8))
        for received in frames:
            level, change = (received.seq + 1) // 2, {1: "slow", 3: "slow"}.get(received.seq)
            yield replace(received, semantic=semantic, temporal=Temporal(quality_level=level, quality_change=change))

    nodes = [
        make_node("camera", "source", Camera(4)),
        make_node("segment", "segment", segment, "camera"),
        make_node("sink", "output", Ledger(), "segment"),
    ]
    graph = Graph(make_config(nodes))
    with serving(graph) as port, graph:
        assert graph.wait(10)
        samples = scrape(port)
    assert samples["stream_seg_quality_level stage=segment"] == 2
    assert samples["stream_seg_quality_changes_total reason=slow stage=segment"] == 2
    assert samples["stream_seg_quality_changes_total reason=spare stage=segment"] == 0


def test_an_output_has_the_class_shares_of_its_newest_frame_computed_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, computed, taken, release = [100.0], list[int](), SimpleQueue[int](), SimpleQueue[None]()
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    measure = labels.class_shares
    monkeypatch.setattr(labels, "class_shares", lambda *values: (computed.append(1), measure(*values))[1])

    def segment(frames: Frames) -> Frames:
        for received in frames:
            label_map = np.zeros((4, 4), np.uint8)
            label_map[: received.seq] = CAMVID.index("road")
            label_map[3, 3] = VOID
            semantic = Semantic(CAMVID, EngineInfo("road", "openvino", "int8", "CPU"), (4, 4), label_map=label_map)
            outage = Signal("down", "refused", 0) if received.seq == 3 else None
            yield replace(received, semantic=None if outage else semantic, signal=outage)

    def sink(frames: Frames) -> Frames:
        for received in frames:
            release.get(timeout=10)
            yield received
            taken.put(received.seq)  # counted by now

    def take(seq: int) -> None:
        release.put(None)
        assert taken.get(timeout=10) == seq

    def shares(port: int) -> dict[str, float]:
        samples = {name: value for name, value in scrape(port).items() if name.startswith("stream_seg_class_share ")}
        return {name.split()[1].removeprefix("class="): value for name, value in samples.items() if value}

    nodes = [
        make_node("camera", "source", Camera(50)),
        make_node("segment", "segment", segment, "camera"),
        make_node("sink", "output", sink, "segment"),
    ]
    graph = Graph(make_config(nodes))
    with serving(graph) as port, graph:
        assert "stream_seg_class_share" not in "".join(scrape(port))
        take(0)
        assert shares(port) == {"sky": 15 / 16}
        assert "stream_seg_class_share class=road stage=sink stream=camera" in scrape(port)
        take(1)
        assert shares(port) == {"sky": 15 / 16}  # not measured yet
        now_s[0] += 1
        assert shares(port) == shares(port) == {"road": 4 / 16, "sky": 11 / 16}
        take(2)
        take(3)
        assert shares(port) == {}  # a placeholder
        for _ in range(50):
            release.put(None)
        assert graph.wait(10)
        assert shares(port) == {}  # the source has ended
    assert len(computed) == 2


def test_a_port_in_use_is_rejected() -> None:
    graph = Graph(make_config(make_chain(Camera(1), Work(), Ledger())))
    with serving(graph) as port:
        rejected = pytest.raises(ConfigError, match=f"cannot serve on 127.0.0.1:{port}")
        with rejected, serve_metrics(graph, MetricsConfig(port=port)):
            pass


def idle_graph() -> Graph:
    """Return a graph that is not started."""
    return Graph(make_config(make_chain(Camera(1), Work(), Ledger())))


def status_for_host(name: str, port: int) -> int:
    """Return the HTTP status of a scrape with this `Host` header."""
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}/metrics", headers={"Host": name}), timeout=5) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait until the condition holds; fail after `timeout_s`."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {timeout_s} s"
        time.sleep(0.01)


def test_slow_connections_are_limited_and_scrapes_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    process, limit = psutil.Process(), metrics_server.MAX_CONNECTIONS
    with serving(idle_graph()) as port:
        threads, files = active_count(), process.num_fds() + 60
        connections = [open_connection(port, b"GET /metrics HTTP/1.1\r\nHost: 127") for _ in range(60)]
        try:
            assert "stream_seg_fps stage=camera" in scrape(port)
            wait_for(lambda: active_count() <= threads + limit and process.num_fds() <= files + limit, timeout_s=2)
            assert not all(map(is_closed, connections))  # a slow connection is not closed before the limit is reached
            monkeypatch.setattr(metrics_server, "TIMEOUT_S", 0.2)
            wait_for(lambda: all(map(is_closed, connections)), timeout_s=10)
            wait_for(lambda: active_count() <= threads and process.num_fds() <= files, timeout_s=10)
        finally:
            for connection in connections:
                connection.close()
        assert "stream_seg_fps stage=camera" in scrape(port)


class BlockingCollector(Collector):
    """Metrics that block a scrape until `release` is set."""

    def __init__(self) -> None:
        self.started, self.release = Event(), Event()

    def collect(self) -> list[Metric]:
        """Return no metrics once `release` is set."""
        self.started.set()
        self.release.wait(30)
        return []


def test_a_connection_that_is_being_answered_is_not_closed_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "TIMEOUT_S", 60.0)
    collector, registry = BlockingCollector(), CollectorRegistry()
    with metrics_server.MetricsServer("127.0.0.1", 0, registry) as server:
        registry.register(collector)
        thread = Thread(target=server.serve_forever)
        thread.start()
        connections = [open_connection(server.server_port, b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")]
        try:
            assert collector.started.wait(10)
            connections += [
                open_connection(server.server_port, b"GET /metrics") for _ in range(metrics_server.MAX_CONNECTIONS)
            ]
            wait_for(lambda: any(map(is_closed, connections)), timeout_s=10)
            assert not is_closed(connections[0])
            collector.release.set()
            connections[0].settimeout(10)
            assert b" 200 OK" in connections[0].recv(64)
        finally:
            collector.release.set()
            for connection in connections:
                connection.close()
            server.shutdown()
            thread.join()


def test_sending_single_bytes_does_not_keep_a_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "TIMEOUT_S", 0.5)
    with serving(idle_graph()) as port, open_connection(port, b"GET /metrics") as connection:
        end_s = time.monotonic() + 10
        while not is_closed(connection):
            assert time.monotonic() < end_s
            connection.send(b"x")
            time.sleep(0.05)


def test_an_unknown_host_name_is_rejected() -> None:
    with serving(idle_graph()) as port:
        assert status_for_host("evil.example", port) == status_for_host("localhost.evil.example:80", port) == 421
        assert status_for_host("", port) == 421
        assert status_for_host(f"localhost:{port}", port) == status_for_host(f"[::1]:{port}", port) == 200


def test_a_public_address_allows_every_host_name_and_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with serving(idle_graph()):
        assert not caplog.messages
    with serving(idle_graph(), host="0.0.0.0") as port:
        assert caplog.messages == [
            "metrics.host 0.0.0.0: everyone who reaches it can read them; set metrics.token_file or "
            "STREAM_SEG_METRICS_TOKEN"
        ]
        assert status_for_host("camera-box", port) == 200


def test_the_formats_of_a_scrape() -> None:
    with serving(idle_graph()) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        with urlopen(Request(url, headers={"Accept-Encoding": "gzip"}), timeout=5) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.headers["Content-Type"].startswith("text/plain; version=")
            assert b"# TYPE stream_seg_fps gauge" in gzip.decompress(response.read())
        openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
        with urlopen(Request(url, headers=openmetrics), timeout=5) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            assert response.read().endswith(b"# EOF\n")
        odd = {"Accept": "application/openmetrics-text; version=x"}
        with urlopen(Request(url, headers=odd), timeout=5) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=")


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")])
def test_the_url_of_the_metrics_works_in_a_browser(monkeypatch: pytest.MonkeyPatch, host: str, shown: str) -> None:
    server = metrics_server.MetricsServer
    on_ipv4 = lambda _, port, registry, **keys: server("127.0.0.1", port, registry, **keys)  # noqa: E731 - IPv6 may be off
    monkeypatch.setattr(metrics_server, "MetricsServer", on_ipv4)
    with serve_metrics(idle_graph(), MetricsConfig(host=host, port=0)) as url:
        assert re.fullmatch(rf"http://{re.escape(shown)}:\d+/metrics", url)


TOKEN = "canary-0123456789"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def status_with(authorization: str, port: int) -> int:
    """Return the HTTP status of a scrape with this `Authorization` header; only status 200 comes with metrics."""
    url = f"http://127.0.0.1:{port}/metrics"
    response = httpx.get(url, headers={"Authorization": authorization} if authorization else {}, trust_env=False)
    assert ("stream_seg_fps" in response.text) is (response.status_code == 200)
    return response.status_code


def test_with_a_token_only_requests_that_carry_it_are_answered(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(idle_graph(), token_file=token_file, host="0.0.0.0", plain=True) as port:
        assert status_with(f"Bearer {TOKEN}", port) == 200
        response = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert status_with(f"Basic {TOKEN}", port) == 401
        statuses = [status_with(f"Bearer {TOKEN} {number}", port) for number in range(MAX_FAILURES + 1)]
        assert statuses == [401] * MAX_FAILURES + [429]
        assert status_with(f"Bearer {TOKEN}", port) == 429  # of an address that guesses
    assert TOKEN not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METRICS_TOKEN_ENV, TOKEN)
    with serving(idle_graph()) as port:
        assert status_with("", port) == 401
        assert status_with(f"bearer {TOKEN}", port) == 200


def test_tls(token_file: Path, tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    keys = {"certfile": certificate, "keyfile": key, "token_file": token_file, "host": "0.0.0.0"}
    trusted = ssl.create_default_context(cafile=certificate)
    with serving(idle_graph(), **keys) as port:
        slow = [open_connection(port, b"") for _ in range(3)]  # a handshake that never comes holds up nobody
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, trust_env=False, timeout=5) as client:
            right = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            assert "stream_seg_fps" in right.text
            assert client.get("/metrics").status_code == 401
        with pytest.raises(httpx.TransportError):
            status_with(f"Bearer {TOKEN}", port)  # not encrypted
        for connection in slow:
            connection.close()


def test_slow_tls_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "TIMEOUT_S", 0.2)
    key, certificate = make_certificate(tmp_path)
    with serving(idle_graph(), certfile=certificate, keyfile=key) as port:
        connections = [open_connection(port, start) for start in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n")]
        wait_for(lambda: all(map(is_closed, connections)), timeout_s=10)
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"certfile": "a.pem"}, "metrics: certfile and keyfile must be set together"),
        ({"host": "0.0.0.0", "token_file": "x/token"}, "metrics: host 0.0.0.0 needs TLS for its token: set certfile"),
    ],
)
def test_invalid_keys_are_rejected(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as rejected:
        check({"stages": {"synthetic": {}, "show": {"input": "synthetic"}}, "metrics": {"port": 0, **keys}}, where="g")
    assert str(rejected.value).startswith(f"g: {message}")


@pytest.mark.parametrize(
    ("text", "message"), [("short\n", "has 5 characters; the minimum is 12"), (None, "No such file or directory")]
)
def test_an_invalid_token_file_is_rejected(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    with (
        pytest.raises(ConfigError, match=f"^metrics: token_file: .*{message}$"),
        serving(idle_graph(), token_file=tmp_path / "token"),
    ):
        pass


def test_an_invalid_certificate_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nothing")
    keys = {"certfile": tmp_path / "a.pem", "keyfile": tmp_path / "a.pem"}
    with (
        pytest.raises(ConfigError, match=r"^metrics: certfile .*a\.pem, keyfile .*a\.pem: "),
        serving(idle_graph(), **keys),
    ):
        pass
