"""Query a real Prometheus, which scrapes a run, for every expression of the dashboards and alerts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from monitoring.dashboards import FOLDER, GPU_ROW
from tests.support.program import ENDLESS_DRIVE, find_free_port, start_program, wait_until

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
        query = urlencode({"query": expression})
        with urlopen(f"{self._address}/api/v1/query?{query}", timeout=10) as response:
            result = json.load(response)
        return [series["value"][1] for series in result["data"]["result"]]


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


def to_query(expression: str) -> str:
    """Return an expression with Grafana's variables filled in; its conditions yield 0 or 1 instead of filtering."""
    for name, value in {"instance": ".+", "stream": ".+", "__rate_interval": "10s"}.items():
        expression = expression.replace(f"${name}", value)
    return re.sub(r"(==|>|<) (?=[\d.])", r"\1 bool ", expression)


def places_without_data(prometheus: Prometheus, expressions: dict[str, str]) -> list[str]:
    """Return the places whose expression has no value."""
    return [place for place, expression in expressions.items() if not prometheus.values(to_query(expression))]


@contextmanager
def scraping(target: int, port: int, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with monitoring/prometheus.yml, except for the target and the intervals."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"}
    config["rule_files"] = [str(MONITORING / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield Prometheus(port)
        finally:
            server.kill()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a run and has received the ages of frames."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs prometheus (Debian: prometheus)")
    port = find_free_port()
    arguments = ("run", f"{ENDLESS_DRIVE}&paced=1", tmp_path / "out.jsonl", "--metrics-port", port, "--quiet")
    with start_program(*arguments) as program, scraping(port, find_free_port(), tmp_path) as server:
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


@pytest.mark.soak
def test_no_alert_fires_for_a_run_on_an_idle_machine(prometheus: Prometheus) -> None:
    wait_until(lambda: not places_without_data(prometheus, expressions()), within_s=60)
    assert prometheus.values('ALERTS{alertstate="firing"}') == []
