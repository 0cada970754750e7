"""Whatever its spelling, a password in an address is never said: in no log, metric, error or page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest

from tests.programs import running, wait_until
from tests.rtsp import rtsp_server

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
from stream_seg.cli import program
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
    ],
)
def test_a_slip_on_the_command_line_does_not_say_it_either(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stream_seg.cli", "run", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert ran.returncode == 2
    assert CANARY not in ran.stdout + ran.stderr
    assert len(ran.stderr.splitlines()) == 1
