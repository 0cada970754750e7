"""Whatever its spelling, a password in an address is never said: in no log, metric, error or page."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import pytest

from stream_seg.config.graph_file import ELSEWHERE, check, read_document, with_settings
from stream_seg.errors import ConfigError
from stream_seg.stages.registry import SOURCES, STAGES
from tests.support.program import running, wait_until
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
from stream_seg.cli.app import program
program()
"""
"""The program with FFmpeg's own log on, as loud as it goes."""


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_nothing_says_the_password(
    spelling: str, tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at that port: it fails, and says so again and again, and in the metrics, at DEBUG."""
    monkeypatch.setenv("CAMERA_PASSWORD", CANARY)
    address = SPELLINGS[spelling].format(unused_port)
    command = [sys.executable, "-c", RUN, "-v", "run", address, tmp_path / "o.jsonl", "--metrics-port", "0"]
    said, page = said_of([str(part) for part in command])
    assert CANARY not in said + page
    assert "Traceback" not in said
    if spelling != "an unknown scheme":
        assert str(unused_port) in said  # the host is said: somebody has to find the camera


def said_of(command: list[str]) -> tuple[str, str]:
    """What a program says until it has failed twice, or ended; and its metrics then."""
    said, page = "", ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            said += line
            if said.count('"message": "down') + said.count(" down: ") >= 2:
                port = said.partition("metrics at http://127.0.0.1:")[2].partition("/")[0]
                page = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
                assert "stream_seg_source_state" in page
                program.terminate()
                said += program.stdout.read()
                break
    return said, page


def test_a_wrong_password_is_not_said_and_neither_is_a_right_one(tmp_path: Path) -> None:
    with rtsp_server(password="hunter2") as (port, _):
        address = f"rtsp://user:hunter2-wrong@127.0.0.1:{port}/live"
        command = [sys.executable, "-c", RUN, "-v", "run", address, str(tmp_path / "o.jsonl"), "--metrics-port", "0"]
        said, page = said_of(command)
        assert "401" in said
        assert CANARY not in said + page
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
            "--set",
            setting,
            "--set",
            "capture.frames=20",
        ]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert CANARY not in ran.stdout + ran.stderr + lines.read_text()
        assert '"classes"' in lines.read_text()


PATHS = ("/", "/api/sources", "/api/classes", "/api/stats", "/api/view", "/api/openapi.json", "/metrics", "/readyz")


def asked_of(address: str) -> dict[str, str]:
    """What the page says at each path, whatever the status."""
    with httpx.Client(base_url=address, trust_env=False, timeout=10) as http:
        return {path: http.get(path).text for path in PATHS}


def test_page_traces_and_report_do_not_say_it_while_the_camera_is_there_and_when_it_is_gone(
    tmp_path: Path, unused_port: int
) -> None:
    page, files = (
        f"http://127.0.0.1:{unused_port}",
        [tmp_path / name for name in ("o.jsonl", "run.json", "traces.jsonl")],
    )
    settings = ("--set", f"traces.file={files[2]}", "--set", "traces.sample=1", "--report", files[1])
    with rtsp_server(password=CANARY) as (port, server):
        address = f"rtsp://user:{CANARY}@127.0.0.1:{port}/live"
        with running("-v", "run", address, page, files[0], *settings) as program:
            wait_until(lambda: state(page) == ("up", None), program)
            there = asked_of(page)
            server.kill()
            wait_until(lambda: state(page) == ("down", "refused"), program)
            gone = asked_of(page)
            program.terminate()
            said = "".join(program.communicate(timeout=20))
    assert program.returncode == 0
    written = {path.name: path.read_text() for path in files}
    for place, text in [*there.items(), *gone.items(), *written.items(), ("log", said)]:
        assert text, place
        assert CANARY not in text, place
    assert "stream_seg_source_up" in gone["/metrics"]
    assert '"capture"' in written["traces.jsonl"]
    assert "refused" in said.lower()


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
def test_a_slip_on_the_command_line_does_not_say_it_either(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stream_seg.cli.app", "run", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert ran.returncode == (5 if "--report" in arguments else 4 if "x.onnx" in arguments[-1] else 2)
    assert CANARY not in ran.stdout + ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_nor_does_a_command_that_is_none(tmp_path: Path) -> None:
    for program in (["-m", "stream_seg.cli.app"], ["-m", "stream_seg.cli.app", "eval"]):
        command = [sys.executable, *program, "rtsp://me:hunter2@host/live"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert ran.returncode == 2
        assert "host/live" in ran.stderr
        assert CANARY not in ran.stdout + ran.stderr


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
"""Addresses where something else belongs."""


def graphs_with(value: Any) -> list[dict[str, Any]]:
    """Graphs that have `value` in a wrong place: for a stage, for each key of each kind, for each key of the top."""
    front, write = {"stage": "capture", "uri": "a.mp4"}, {"input": "front", "path": "o.mp4"}
    stages: list[dict[str, Any]] = [{"front": value}]
    for kind in STAGES:
        stage = {} if kind in SOURCES else {"input": "front"}
        keys = [field.name for field in dataclasses.fields(STAGES[kind])]  # type: ignore[arg-type]
        stages += [{"other": {"stage": kind, **stage, key: value}} for key in (*keys, "input", "policy", "stage")]
        if isinstance(value, str):
            stages.append({"other": {"stage": kind, **stage, value: 3}})
    tops: list[dict[str, Any]] = [{key: value} for key in ("stages", *ELSEWHERE)]
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
def test_an_address_in_a_wrong_place_of_a_graph_is_not_said(address: str) -> None:
    said = []
    for value in (address, [address], {"uri": address}, {address: 1}, [[address]]):
        for graph in graphs_with(value):
            try:
                check(graph, where="g.yaml")
            except ConfigError as error:
                said.append(str(error))
    assert len(said) > 300
    assert [line for line in said if CANARY in line or "\n" in line] == []


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ({"stages": {"front": MISPLACED[0]}}, "stages.front: expected mapping, got 'rtsp://10.1.0.11/live'"),
        ({"stages": {"front": {"stage": MISPLACED[0]}}}, "stages.front: unknown stage 'rtsp://10.1.0.11/live'"),
        ({"stages": {"front": "rtsp://viewer:hunter2"}}, "expected mapping, got 'rtsp://viewer:…'"),
        ({"stages": [MISPLACED[0]]}, "stages: expected mapping, each to a mapping, got a list"),
        ({"stages": {"smooth": {"input": {"uri": MISPLACED[0]}}}}, "a list of different names, got a mapping"),
        ({"stages": {"smooth": {"input": "a", "weight": "x" * 999}}}, f"got '{'x' * 80}…'"),
    ],
)
def test_what_is_in_the_wrong_place_is_named(graph: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(graph, where="g.yaml")
    assert said in str(caught.value)


def test_an_address_that_is_a_key_twice_is_not_said(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("stages:\n" + 2 * f'  "{MISPLACED[0]}": {{}}\n')
    with pytest.raises(ConfigError, match=r"line 3, column 3 duplicate key 'rtsp://10.1.0.11/live'"):
        read_document(tmp_path / "g.yaml")


@pytest.mark.parametrize("address", MISPLACED)
@pytest.mark.parametrize("setting", ["{}", "{}=3", "{}?a=3", "front.{}=3", "front={}", "front.frames={}", "stages={}"])
def test_an_address_in_a_setting_is_not_said(address: str, setting: str) -> None:
    graph = {"stages": {"front": {"stage": "capture", "uri": "a.mp4"}, "write": {"input": "front", "path": "o.mp4"}}}
    with pytest.raises(ConfigError) as caught:
        check(with_settings(graph, [setting.format(address)]), where="g.yaml")
    assert CANARY not in str(caught.value)
