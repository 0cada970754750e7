"""Alert rules checked with Debian's promtool, and dashboards compared with their script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from monitoring.dashboards import DASHBOARDS, FOLDER, GPU_ROW, LIVE, MACHINE, SERIES
from stream_seg.config.graph_file import check

MONITORING = Path(__file__).parents[2] / "monitoring"
COMPOSE = MONITORING / "docker-compose.yml"
CASES = Path(__file__).with_name("alerts_test.yml")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)


@needs_promtool
def test_the_config_and_its_rules_are_valid() -> None:
    checked = promtool("check", "config", MONITORING / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "14 rules found" in checked.stdout


@needs_promtool
def test_alerts_fire_and_stay_silent_as_specified() -> None:
    checked = promtool("test", "rules", CASES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    silent = {case["alertname"] for case in cases if "exp_alerts" not in case}
    # LateFramesSlow has no case of its own without an alert: it is silent for the second series of its firing case
    assert {case["alertname"] for case in cases if "exp_alerts" in case} == alerts
    assert silent | {"LateFramesSlow"} == alerts


def test_the_operation_page_explains_every_alert_and_its_graph_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (MONITORING.parent / "docs" / "operation.md").read_text()
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    alerts = {f"`{r['alert']}` ({r['labels']['severity']})" for group in groups for r in group["rules"] if "alert" in r}
    assert set(re.findall(r"^\| (`[A-Z]\w+` \(\w+\))", page, re.MULTILINE)) == alerts
    graph = page.partition("```yaml\n")[2].partition("```")[0]
    for name in re.findall(r"\$\{(\w+)\}", graph):
        monkeypatch.setenv(name, "secret")
    assert [node.name for node in check(yaml.safe_load(dedent(graph)), where="operation.md").nodes][:2] == [
        "front",
        "rear",
    ]


@needs_promtool
def test_the_alert_cases_fail_for_a_renamed_metric(tmp_path: Path) -> None:
    rules = (MONITORING / "alerts.yml").read_text().replace("stream_seg_last_frame_timestamp", "stream_seg_last_frame")
    (tmp_path / "alerts.yml").write_text(rules)
    (tmp_path / "cases.yml").write_text(CASES.read_text().replace("../../monitoring/alerts.yml", "alerts.yml"))
    checked = promtool("test", "rules", tmp_path / "cases.yml")
    assert checked.returncode != 0
    assert "FramesStale" in checked.stdout + checked.stderr


def test_the_dashboards_are_up_to_date_with_their_script() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == dict(DASHBOARDS)


def test_every_query_of_a_dashboard_filters_and_groups_by_program() -> None:
    """Several programs share a dashboard: a query takes those that the variable selects, and lines are kept apart."""
    for row, charts in [*LIVE.items(), *MACHINE.items()]:
        if row == GPU_ROW:  # another exporter, with instances of its own
            continue
        for chart in charts:
            for expression in chart.expressions.values():
                metrics = re.findall(r"\b(?:stream_seg|process)_\w+", expression)
                assert metrics
                assert len(metrics) == expression.count('instance=~"$instance"'), expression
                groups = re.findall(r"\bby \(([^)]*)\)", expression)
                if chart.kind in SERIES:
                    assert all("instance" in group.split(", ") for group in groups), expression
                    assert groups or not re.search(r"\b(sum|max|min|avg)\b", expression), expression


def test_compose_mounts_existing_files() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    mounted = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    missing = [path for path in mounted if path.startswith("./") and not (MONITORING / path).exists()]
    assert not missing
    assert sorted(services) == ["grafana", "prometheus"]


def test_grafana_has_an_owner_without_a_default_password() -> None:
    environment = yaml.safe_load(COMPOSE.read_text())["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")  # refuses to start without it
    assert environment["GF_SECURITY_ADMIN_USER"] != "admin"
    assert "GF_AUTH_DISABLE_LOGIN_FORM" not in environment
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_compose_refuses_to_start_without_a_password() -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("needs docker-compose (Debian: docker-compose)")
    environment = {name: value for name, value in os.environ.items() if name != "GRAFANA_PASSWORD"}
    command = [program, "-f", str(COMPOSE), "config"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "set it to a password for the owner" in refused.stderr
    started = subprocess.run(command, env={**environment, "GRAFANA_PASSWORD": "canary"}, capture_output=True, text=True)
    rendered = yaml.safe_load(started.stdout)["services"]["grafana"]["environment"]
    assert rendered["GF_SECURITY_ADMIN_PASSWORD"] == "canary"
