"""Query a real Prometheus, which scrapes a run, for every expression of the dashboards and alerts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest
import yaml

from monitoring.dashboards import FOLDER, GPU_ROW, LIVE, SERIES
from stream_seg.config.document import MetricsConfig
from stream_seg.runtime.graph import Graph
from stream_seg.telemetry.metrics import register
from stream_seg.telemetry.server import serve_metrics
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config
from tests.support.program import ENDLESS_DRIVE, find_free_port, make_certificate, start_program, wait_until

MONITORING = Path(__file__).parents[2] / "monitoring"


class Prometheus:
    """A Prometheus server at a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        try:
            with urlopen(f"{self._address}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except URLError:
            return False

    def values(self, expression: str) -> list[str]:
        """Return the values of an instant query."""
        return [series["value"][1] for series in self._query(expression)]

    def instances(self, expression: str) -> list[str]:
        """Return the programs of the series of an instant query."""
        return sorted({series["metric"]["instance"] for series in self._query(expression)})

    def _query(self, expression: str) -> list[dict[str, Any]]:
        query = urlencode({"query": expression})
        with urlopen(f"{self._address}/api/v1/query?{query}", timeout=10) as response:
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return result


def expressions() -> dict[str, str]:
    """Return every expression by its place: dashboards without the GPU row, alerts and recording rules."""
    result: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.json")):
        row = ""
        for panel in json.loads(path.read_text())["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            for target in panel.get("targets", ()) if row != GPU_ROW else ():
                result[f"{path.name}: {panel['title']} {target['refId']}"] = target["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            result[f"alerts.yml: {rule.get('alert') or rule['record']}"] = rule["expr"]
    return result


def to_query(expression: str, *, instance: str = ".+") -> str:
    """Return an expression with Grafana's variables filled in; its conditions yield 0 or 1 instead of filtering."""
    for name, value in {"instance": instance, "stream": ".+", "__rate_interval": "10s"}.items():
        expression = expression.replace(f"${name}", value)
    return re.sub(r"(==|>|<) (?=[\d.])", r"\1 bool ", expression)


def places_without_data(prometheus: Prometheus, expressions: dict[str, str]) -> list[str]:
    """Return the places whose expression has no value."""
    return [place for place, expression in expressions.items() if not prometheus.values(to_query(expression))]


@contextmanager
def scraping(targets: list[str], folder: Path, *, config_file: str = "prometheus.yml") -> Iterator[Prometheus]:
    """Run Prometheus with a file of monitoring/, except for the targets and the intervals."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs prometheus (Debian: prometheus)")
    port = find_free_port()
    config = yaml.safe_load((MONITORING / config_file).read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"}
    config["rule_files"] = [str(MONITORING / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = targets
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield Prometheus(port)
        finally:
            server.kill()


@pytest.fixture(scope="module")
def addresses() -> list[str]:
    """Two addresses of one program, which Prometheus takes for two programs."""
    port = find_free_port()
    return [f"127.0.0.1:{port}", f"localhost:{port}"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, addresses: list[str]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a run and has received the ages of frames."""
    folder, port = tmp_path_factory.mktemp("prometheus"), addresses[0].partition(":")[2]
    with scraping(addresses, folder) as server:
        arguments = ("run", f"{ENDLESS_DRIVE}&paced=1", folder / "out.jsonl", "--metrics-port", port, "--quiet")
        with start_program(*arguments) as program:
            wait_until(server.ready, program)
            frames = "sum(stream_seg_frame_age_seconds_count)"
            wait_until(lambda: any(float(value) > 0 for value in server.values(frames)), program)
            yield server


def test_every_expression_of_dashboards_and_alerts_has_data(prometheus: Prometheus) -> None:
    every_expression = expressions()
    assert len(every_expression) > 25
    wait_until(lambda: not places_without_data(prometheus, every_expression), within_s=60)
    renamed = {
        place: expression.replace("stream_seg_fps", "stream_seg_speed")
        for place, expression in every_expression.items()
    }
    assert places_without_data(prometheus, renamed) == ["stream_seg_live.json: Frames per second A"]


def test_a_dashboard_shows_several_programs_or_the_selected_one(prometheus: Prometheus, addresses: list[str]) -> None:
    charts = [chart for charts in LIVE.values() for chart in charts if chart.kind in SERIES]
    every_expression = [expression for chart in charts for expression in chart.expressions.values()]
    for expression in every_expression:
        everything = partial(prometheus.instances, to_query(expression))
        wait_until(lambda everything=everything: everything() == addresses, within_s=60)
        for address in addresses:
            assert prometheus.instances(to_query(expression, instance=address)) == [address]


def test_prometheus_scrapes_metrics_with_a_token_and_tls(tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    certificate.rename(tmp_path / "metrics.pem")
    (tmp_path / "metrics.token").write_text("canary-0123456789\n")
    graph = Graph(make_config(make_chain(Camera(1), Work(), Ledger())))
    register(graph)
    files = {"token_file": tmp_path / "metrics.token", "certfile": tmp_path / "metrics.pem", "keyfile": key}
    config = MetricsConfig.model_validate({"host": "0.0.0.0", "port": 0, **files})
    with serve_metrics(graph, config) as url:
        address = f"127.0.0.1:{urlsplit(url).port}"
        with scraping([address], tmp_path, config_file="prometheus_tls.yml") as server:
            wait_until(lambda: server.ready() and server.values("up") == ["1"])
            assert server.instances("stream_seg_fps") == [address]


@pytest.mark.soak
def test_no_alert_fires_for_a_run_on_an_idle_machine(prometheus: Prometheus) -> None:
    wait_until(lambda: not places_without_data(prometheus, expressions()), within_s=60)
    assert prometheus.values('ALERTS{alertstate="firing"}') == []
