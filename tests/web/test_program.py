"""Test the program with a page: URL, metrics, redaction of the token, shutdown, reload, TLS."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path

import httpx
import pytest

import stream_seg
from tests.support.page_client import make_segmented_frame, run_page
from tests.support.program import ENDLESS_DRIVE, make_certificate, run_cli, start_program, wait_until
from tests.support.time_limits import TimeLimit

TOKEN = "canary-0123456789"
STOP_S = 2.0


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def open_stalled_viewer(port: int) -> socket.socket:
    """Request the live stream and read nothing."""
    connection = socket.create_connection(("127.0.0.1", port))
    path = "/api/sources/capture/stream.mjpg"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    return connection


def test_a_run_with_a_page(unused_port: int, monkeypatch: pytest.MonkeyPatch, time_limit: TimeLimit) -> None:
    monkeypatch.setenv("STREAM_SEG_TOKEN", TOKEN)
    address, header = f"http://127.0.0.1:{unused_port}", {"Authorization": f"Bearer {TOKEN}"}
    with start_program("-v", "run", f"{ENDLESS_DRIVE}&paced=1", address, "--metrics-port", 0) as program:
        wait_until(lambda: is_ready(address), program, within_s=60)
        with httpx.Client(base_url=address, headers=header, trust_env=False, timeout=20) as http:
            assert http.get("/api/sources").json()[0]["id"] == "capture"
            assert 'stream_seg_frames_total{outcome="in",stage="serve"}' in http.get("/metrics").text
            drops = http.get("/api/stats").json()["drops"]
            assert {"capture->segment", "smooth->serve"} <= {drop["link"] for drop in drops}
            assert len(http.get("/api/sources/capture/frame.jpg").content) > 1000
            http.post("/login", data={"token": TOKEN})
            http.get("/metrics", headers={"Authorization": "Bearer not the right one"})
            with http.stream("GET", "/api/sources/capture/stream.mjpg") as stream, open_stalled_viewer(unused_port):
                next(stream.iter_raw())
                with time_limit(STOP_S):
                    program.send_signal(signal.SIGTERM)
                    out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    assert f"page at {address}" in err
    for text in (out, err):
        assert TOKEN not in text
        assert "Traceback" not in text
        assert "ERROR" not in text


def test_a_removed_source_leaves_the_page_with_the_metrics(tmp_path: Path, unused_port: int) -> None:
    file, address = tmp_path / "g.yaml", f"http://127.0.0.1:{unused_port}"

    def write_graph(*names: str) -> None:
        sources = "".join(f"  {name}: {{stage: synthetic, width: 96, height: 64, paced: true}}\n" for name in names)
        file.write_text(f"stages:\n{sources}  serve: {{input: [{', '.join(names)}], port: {unused_port}}}\n")

    def list_states(http: httpx.Client) -> list[tuple[str, str]]:
        return sorted((source["id"], source["state"]) for source in http.get("/api/sources").json())

    write_graph("front", "rear")
    with start_program("run", "--config", file) as program:
        wait_until(lambda: is_ready(address), program, within_s=60)
        with httpx.Client(base_url=address, trust_env=False, timeout=20) as http:
            wait_until(lambda: list_states(http) == [("front", "up"), ("rear", "up")], program)
            write_graph("front")
            program.send_signal(signal.SIGHUP)
            wait_until(lambda: 'stream="rear"' not in http.get("/metrics").text, program)
            wait_until(lambda: list_states(http) == [("front", "up")], program, within_s=10)
            write_graph("front", "rear")
            program.send_signal(signal.SIGHUP)
            wait_until(lambda: list_states(http) == [("front", "up"), ("rear", "up")], program)


SHORT_DRIVE = f"{ENDLESS_DRIVE}&frames=8&rate=100"


def test_the_page_of_a_recording_stays_until_ctrl_c(unused_port: int) -> None:
    address = f"http://127.0.0.1:{unused_port}"
    with start_program("run", SHORT_DRIVE, address) as program:
        wait_until(lambda: is_ready(address), program, within_s=60)
        with httpx.Client(base_url=address, trust_env=False, timeout=20) as http:
            wait_until(lambda: http.get("/api/sources").json()[0]["state"] == "ended", program)
            assert http.get("/api/sources").json()[0]["seq"] == 7
            assert len(http.get("/api/sources/capture/frame.jpg").content) > 1000
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    assert f"ended; page stays at {address}, Ctrl-C to quit\n" in err
    assert "8 in, 8 out" in out


@pytest.mark.parametrize("batch", [("--report", "run.json"), ("--set", "serve.stay=false"), ("out.jsonl",)])
def test_a_batch_run_ends_with_its_recording(
    unused_port: int,
    batch: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("run", SHORT_DRIVE, f"http://127.0.0.1:{unused_port}", *batch) == 0
    assert "8 in, 8 out" in capfd.readouterr().out


def test_the_python_api_ends_with_its_recording(unused_port: int) -> None:
    report = stream_seg.run(SHORT_DRIVE, f"http://127.0.0.1:{unused_port}")
    assert report.frames.written == 8


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SEG_TOKEN", TOKEN)
    key, certificate = make_certificate(tmp_path)
    keys = {
        "host": "0.0.0.0",
        "certfile": certificate,
        "keyfile": key,
        "verify": ssl.create_default_context(cafile=certificate),
    }
    with run_page(**keys, headers={"Authorization": f"Bearer {TOKEN}"}) as page:
        assert page.url.startswith("https://")
        page.put(make_segmented_frame(0))
        assert page.get("/api/sources").json()[0]["state"] == "up"
        with page.http.stream("GET", "/api/sources/front/stream.mjpg") as answer:
            chunks = answer.iter_raw()
            assert b"image/jpeg" in next(chunks) + next(chunks)
        assert "Secure" in page.http.post("/login", data={"token": TOKEN}).headers["set-cookie"]
