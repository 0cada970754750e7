"""A run scraped by a real Prometheus, which is then asked every expression that a dashboard or an alert uses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from monitoring.dashboards import FOLDER, GPU_ROW
from tests.support.program import DRAWN, free_port, running, wait_until

MONITORING = Path(__file__).parents[2] / "monitoring"


class Prometheus:
    """A server of its own on loopback: asked with `values`."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        try:
            with urlopen(f"{self._address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False

    def values(self, expression: str) -> list[str]:
        """The values of an instant query."""
        query = urlencode({"query": expression})
        with urlopen(f"{self._address}/api/v1/query?{query}", timeout=10) as answer:
            said = json.load(answer)
        return [series["value"][1] for series in said["data"]["result"]]


def expressions() -> dict[str, str]:
    """Where it is used, and what is asked: of dashboards (but for the GPU row), alerts and recording rules."""
    used: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.json")):
        row = ""
        for panel in json.loads(path.read_text())["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            for target in panel.get("targets", ()) if row != GPU_ROW else ():
                used[f"{path.name}: {panel['title']} {target['refId']}"] = target["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            used[f"alerts.yml: {rule.get('alert') or rule['record']}"] = rule["expr"]
    return used


def asked(expression: str) -> str:
    """With Grafana's variables filled in; a condition gives its truth instead of nothing where it is false."""
    for name, value in {"instance": ".+", "stream": ".+", "__rate_interval": "10s"}.items():
        expression = expression.replace(f"${name}", value)
    return re.sub(r"(==|>|<) (?=[\d.])", r"\1 bool ", expression)


def unanswered(prometheus: Prometheus, used: dict[str, str]) -> list[str]:
    return [where for where, expression in used.items() if not prometheus.values(asked(expression))]


@contextmanager
def scraping(target: int, port: int, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with the config that is handed out, but for the target and the intervals."""
    said = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    said["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"}
    said["rule_files"] = [str(MONITORING / "alerts.yml")]
    said["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(said))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield Prometheus(port)
        finally:
            server.kill()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)")
def test_every_expression_of_dashboards_and_alerts_is_answered(tmp_path: Path) -> None:
    port = free_port()
    drive = ("run", f"{DRAWN}&paced=1", tmp_path / "out.jsonl", "--metrics-port", port, "--quiet")
    with running(*drive) as program, scraping(port, free_port(), tmp_path) as prometheus:
        wait_until(prometheus.ready, program)
        frames = "sum(stream_seg_frame_age_seconds_count)"
        wait_until(lambda: any(float(value) > 0 for value in prometheus.values(frames)), program)
        used = expressions()
        assert len(used) > 25
        end = time.monotonic() + 30
        while (empty := unanswered(prometheus, used)) and time.monotonic() < end:
            time.sleep(0.5)
        assert not empty
        assert prometheus.values('ALERTS{alertstate="firing"}') == []
        renamed = {
            where: expression.replace("stream_seg_fps", "stream_seg_speed") for where, expression in used.items()
        }
        assert unanswered(prometheus, renamed) == ["stream_seg_live.json: Frames per second A"]
