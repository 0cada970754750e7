"""A password in an address, however it is spelled, appears in no log, metric, error or page."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import pytest

from stream_seg.config.graph_file import TOP_LEVEL, apply_settings, check, read_document
from stream_seg.errors import ConfigError
from stream_seg.stages.base import traits_of
from stream_seg.stages.registry import STAGES, stage_class
from tests.support.program import start_program, wait_until
from tests.support.rtsp_server import rtsp_server

CANARY = "hunter2"
SPELLINGS = {
    "user and password": "rtsp://me:hunter2@127.0.0.1:{}/live",
    "with @": "rtsp://me:hunter2@x@127.0.0.1:{}/live",
    "with /": "rtsp://me:hunter2/x@127.0.0.1:{}/live",
    "with #": "rtsp://me:hunter2#x@127.0.0.1:{}/live",
    "with ?": "rtsp://me:hunter2?x@127.0.0.1:{}/live",
    "with % and :": "rtsp://me:hunter2%3A:x@127.0.0.1:{}/live",
    "no user": "rtsp://:hunter2@127.0.0.1:{}/live",
    "in the query": "http://127.0.0.1:{}/live?user=hunter2&password=hunter2",
    "without a scheme": "me:hunter2@127.0.0.1:{}/live",
    "an IPv6 host": "rtsp://me:hunter2@[::1]:{}/live",
    "a scheme in capitals": "RTSP://me:hunter2@127.0.0.1:{}/live",
    "a name with a dot": "http://me.hunter2:hunter2@127.0.0.1:{}/live",
    "from the environment": "rtsp://me:${{CAMERA_PASSWORD}}@127.0.0.1:{}/live",
    "an unknown scheme": "ftp://me:hunter2@127.0.0.1:{}/live",
}
RUN = """
import sys
import av.logging
av.logging.set_level(av.logging.DEBUG)
from stream_seg.cli.program import program
program()
"""
"""The program with FFmpeg's own log at its most verbose."""


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_output_contains_the_password(
    spelling: str, tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens on that port: the failures are logged at DEBUG again and again, and are in the metrics."""
    monkeypatch.setenv("CAMERA_PASSWORD", CANARY)
    address = SPELLINGS[spelling].format(unused_port)
    command = [sys.executable, "-c", RUN, "-v", "run", address, tmp_path / "o.jsonl", "--metrics-port", "0"]
    log, page = log_and_metrics([str(part) for part in command])
    assert CANARY not in log + page
    assert "Traceback" not in log
    if spelling != "an unknown scheme":
        assert str(unused_port) in log  # the host is shown: the user has to find the camera


def log_and_metrics(command: list[str]) -> tuple[str, str]:
    """Return the output of a program until it has failed twice or ended, and its metrics at that time."""
    log, page = "", ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            log += line
            if log.count('"message": "down') + log.count(" down: ") >= 2:
                port = log.partition("metrics at http://127.0.0.1:")[2].partition("/")[0]
                page = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
                assert "stream_seg_source_state" in page
                program.terminate()
                log += program.stdout.read()
                break
    return log, page


def test_neither_a_wrong_nor_a_right_password_is_logged(tmp_path: Path) -> None:
    with rtsp_server(password="hunter2") as (port, _):
        address = f"rtsp://user:hunter2-wrong@127.0.0.1:{port}/live"
        command = [sys.executable, "-c", RUN, "-v", "run", address, str(tmp_path / "o.jsonl"), "--metrics-port", "0"]
        log, page = log_and_metrics(command)
        assert "401" in log
        assert CANARY not in log + page
        lines = tmp_path / "p.jsonl"
        (tmp_path / "password").write_text(CANARY)
        address = f"rtsp://user@127.0.0.1:{port}/live"
        setting = f"capture.password_file={tmp_path / 'password'}"
        command = [
            sys.executable,
            "-c",
            RUN,
            "-v",
            "run",
            address,
            str(lines),
            "--overwrite",  # a recording with no time in its name
            "--set",
            setting,
            "--set",
            "capture.frames=20",
        ]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert CANARY not in run.stdout + run.stderr + lines.read_text()
        assert '"classes"' in lines.read_text()


PATHS = ("/", "/api/sources", "/api/classes", "/api/stats", "/api/view", "/api/openapi.json", "/metrics", "/readyz")


def read_pages(address: str) -> dict[str, str]:
    """Return the content of each path of the page, whatever the status."""
    with httpx.Client(base_url=address, trust_env=False, timeout=10) as http:
        return {path: http.get(path).text for path in PATHS}


def test_page_traces_and_report_do_not_contain_it_with_the_camera_up_and_down(tmp_path: Path, unused_port: int) -> None:
    page, files = (
        f"http://127.0.0.1:{unused_port}",
        [tmp_path / name for name in ("o.jsonl", "run.json", "traces.jsonl")],
    )
    settings = ("--set", f"traces.file={files[2]}", "--set", "traces.sample=1", "--report", files[1], "--overwrite")
    with rtsp_server(password=CANARY) as (port, server):
        address = f"rtsp://user:{CANARY}@127.0.0.1:{port}/live"
        with start_program("-v", "run", address, page, files[0], *settings) as program:
            wait_until(lambda: state(page) == ("up", None), program)
            up = read_pages(page)
            server.kill()
            wait_until(lambda: state(page) == ("down", "refused"), program)
            down = read_pages(page)
            program.terminate()
            log = "".join(program.communicate(timeout=20))
    assert program.returncode == 0
    written = {path.name: path.read_text() for path in files}
    for place, text in [*up.items(), *down.items(), *written.items(), ("log", log)]:
        assert text, place
        assert CANARY not in text, place
    assert "stream_seg_source_up" in down["/metrics"]
    assert '"capture"' in written["traces.jsonl"]
    assert "refused" in log.lower()


def state(page: str) -> tuple[str, str | None]:
    try:
        sources = httpx.get(f"{page}/api/sources", trust_env=False).json()
    except httpx.TransportError:
        return "", None
    return (sources[0]["state"], sources[0]["reason"]) if sources else ("", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["synth://road?frames=1", "rtsp://me:hunter2@host/live"],
        ["synth://road?frames=1", "o.mp4", "--set", "rtsp://me:hunter2@host/live"],
        ["rtsp://me:${NO_SUCH_VARIABLE}@hunter.example/live", "o.mp4"],
        ["rtsp://me:hunter2@10.1.0.11：554/live", "o.mp4"],
        ["synth://road?frames=1", "o.mp4", "--set", "rtsp://me:hunter2@host/live?key=3"],
        ["synth://road?frames=1", "o.mp4", "--set", "smooth.weight=rtsp://me:hunter2@host/live"],
        ["synth://road?frames=1", "o.mp4", "--config", "rtsp://me:hunter2@host/live"],
        ["synth://road?frames=1", "o.mp4", "--report", "rtsp://me:hunter2@host/live"],
        ["synth://me:hunter2@host/live", "o.mp4"],
        ["synth://road?frames=1", "o.mp4", "--set", "segment.network=rtsp:/me:hunter2@host/x.onnx"],
        ["synth://road?frames=1", "o.mp4", "--set", "segment.network=rtsp://me:hun hunter2@host/x.onnx"],
    ],
)
def test_errors_about_mistyped_arguments_do_not_contain_it(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stream_seg", "run", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert run.returncode == (5 if "--report" in arguments else 4 if "x.onnx" in arguments[-1] else 2)
    assert CANARY not in run.stdout + run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_errors_about_unknown_commands_do_not_contain_it(tmp_path: Path) -> None:
    for program in (["-m", "stream_seg"], ["-m", "stream_seg", "eval"]):
        command = [sys.executable, *program, "rtsp://me:hunter2@host/live"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert run.returncode == 2
        assert "host/live" in run.stderr
        assert CANARY not in run.stdout + run.stderr


MISPLACED = (
    "rtsp://viewer:hunter2@10.1.0.11/live",
    "viewer:hunter2@10.1.0.11/live",
    "rtsp://viewer:x://hunter2@10.1.0.11/live",
    "rtsp://viewer:x=.hunter2@10.1.0.11/live",
    "rtsp://viewer:hunter2@10.1.0.11/live rtsp://viewer:hunter2@10.1.0.12/live",
    "front:hunter2@10.1.0.11 rtsp://viewer:hunter2@10.1.0.12/live",
    "rtsp://viewer:hunter2@10.1.0.11：554/live",
    "rtsp://viewer:hunter2@[::1/live",
)
"""Addresses used in place of other values."""


def graphs_with(value: Any) -> list[dict[str, Any]]:
    """Return graphs with `value` in a wrong place: as a stage, for each key of each stage, for each top-level key."""
    front, write = {"stage": "capture", "uri": "a.mp4"}, {"input": "front", "path": "o.mp4"}
    stages: list[dict[str, Any]] = [{"front": value}]
    for kind in STAGES:
        cls = stage_class(kind)
        stage = {} if traits_of(cls).role == "source" else {"input": "front"}
        keys = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        stages += [{"other": {"stage": kind, **stage, key: value}} for key in (*keys, "input", "policy", "stage")]
        if isinstance(value, str):
            stages.append({"other": {"stage": kind, **stage, value: 3}})
    tops: list[dict[str, Any]] = [{key: value} for key in ("stages", *TOP_LEVEL)]
    tops += [{"metrics": {key: value}} for key in ("port", "host")]
    tops += [{"traces": {key: value}} for key in ("endpoint", "file", "sample")]
    tops += [{"sources": {"schemes": value}}]
    tops += [{"sources": {"hosts": value}, "stages": {"front": {**front, "uri": "rtsp://h/x"}, "write": write}}]
    if isinstance(value, str):
        stages += [{value: {}}, {value: 3}, {value: front}]
        tops.append({value: 3})
    whole = {"front": front, "write": write}
    return [{"stages": {**whole, **part}} for part in stages] + [{"stages": whole, **top} for top in tops]


@pytest.mark.parametrize("address", MISPLACED)
def test_errors_about_a_misplaced_address_in_a_graph_do_not_contain_it(address: str) -> None:
    messages = []
    for value in (address, [address], {"uri": address}, {address: 1}, [[address]]):
        for graph in graphs_with(value):
            try:
                check(graph, where="g.yaml")
            except ConfigError as error:
                messages.append(str(error))
    assert len(messages) > 300
    assert [line for line in messages if CANARY in line or "\n" in line] == []


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"stages": {"front": MISPLACED[0]}}, "stages.front: expected mapping, got 'rtsp://10.1.0.11/live'"),
        ({"stages": {"front": {"stage": MISPLACED[0]}}}, "stages.front: unknown stage 'rtsp://10.1.0.11/live'"),
        ({"stages": {"front": "rtsp://viewer:hunter2"}}, "expected mapping, got 'rtsp://viewer:…'"),
        ({"stages": [MISPLACED[0]]}, "stages: expected mapping, each to a mapping, got a list"),
        ({"stages": {"smooth": {"input": {"uri": MISPLACED[0]}}}}, "a list of different names, got a mapping"),
        ({"stages": {"smooth": {"input": "a", "weight": "x" * 999}}}, f"got '{'x' * 80}…'"),
    ],
)
def test_errors_name_the_misplaced_value(graph: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(graph, where="g.yaml")
    assert message in str(caught.value)


def test_the_error_for_a_duplicate_key_does_not_contain_it(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("stages:\n" + 2 * f'  "{MISPLACED[0]}": {{}}\n')
    with pytest.raises(ConfigError, match=r"line 3, column 3 duplicate key 'rtsp://10.1.0.11/live'"):
        read_document(tmp_path / "g.yaml")


@pytest.mark.parametrize("address", MISPLACED)
@pytest.mark.parametrize("setting", ["{}", "{}=3", "{}?a=3", "front.{}=3", "front={}", "front.frames={}", "stages={}"])
def test_errors_about_settings_do_not_contain_it(address: str, setting: str) -> None:
    graph = {"stages": {"front": {"stage": "capture", "uri": "a.mp4"}, "write": {"input": "front", "path": "o.mp4"}}}
    with pytest.raises(ConfigError) as caught:
        check(apply_settings(graph, [setting.format(address)]), where="g.yaml")
    assert CANARY not in str(caught.value)
