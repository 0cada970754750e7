"""Ctrl-C and SIGTERM to the real program: a prompt end, exit code 0, playable files, true figures."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from onnx import TensorProto, helper, save

from tests.support.clips import number_image, read_video, write_video
from tests.support.program import ENDLESS_DRIVE, count_lines, read_json, start_program, wait_until
from tests.support.rtsp_server import rtsp_server

PROMPT_S = 2.0
STARTING_S = 5.0
ONCE = ("--set", "capture.reconnect=false")
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


def ended(program: subprocess.Popen[str], number: signal.Signals, *, within_s: float) -> str:
    """Send a signal; what the program says on standard error until its end, which has to be prompt and good."""
    program.send_signal(number)
    began = time.monotonic()
    _, said = program.communicate(timeout=30)
    assert time.monotonic() - began < within_s
    assert program.returncode == 0, said
    assert "Traceback" not in said
    return said


def check_files(folder: Path) -> None:
    """The files in a folder hold what the report says, and nothing else lies there."""
    written = read_json(folder / "run.json")["frames"]["by_output"]
    assert len(read_video(folder / "o.mp4")) == written["write"] > 0
    assert count_lines(folder / "o.jsonl") == written["records"] > 0
    assert {path.name for path in folder.iterdir()} == {"o.mp4", "o.jsonl", "run.json"}


def run_into(folder: Path, source: str, *more: object) -> tuple[object, ...]:
    return ("run", source, folder / "o.mp4", folder / "o.jsonl", "--report", folder / "run.json", *more)


def frames_written(folder: Path, number: int) -> Callable[[], bool]:
    return lambda: count_lines(folder / ".o.partial.jsonl") >= number


@BOTH
@pytest.mark.parametrize("paced", ["&paced=1", ""], ids=["live", "recorded"])
def test_while_it_runs(tmp_path: Path, number: signal.Signals, paced: str) -> None:
    with start_program(*run_into(tmp_path, ENDLESS_DRIVE + paced, "--metrics-port", 0)) as program:
        wait_until(frames_written(tmp_path, 20), program)
        said = ended(program, number, within_s=PROMPT_S)
    assert "stopping" in said
    check_files(tmp_path)


@BOTH
def test_while_a_network_loads(tmp_path: Path, unused_port: int, number: signal.Signals) -> None:
    slow = slow_network(tmp_path / "networks")
    settings = ("--set", f"segment.network={slow}", "--set", "segment.precision=f32", "--metrics-port", unused_port)
    folder = tmp_path / "out"
    folder.mkdir()
    with start_program(*run_into(folder, ENDLESS_DRIVE, *settings)) as program:
        wait_until(lambda: answers(unused_port), program)  # the metrics are served just before the stages start
        said = ended(program, number, within_s=STARTING_S)
    assert "did not wait for segment" in said
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    assert read_json(folder / "run.json")["frames"]["written"] == 0


def slow_network(folder: Path) -> Path:
    """A network whose first picture takes about a minute: what an engine runs before it says that it is ready."""
    folder.mkdir()
    channels, side, layers = 64, 1024, 60
    value = helper.make_tensor_value_info
    names = ["picture", *(f"layer {n}" for n in range(layers)), "scores"]
    first, middle, last = ((channels, 3, 1, 1), (channels, channels, 3, 3), (2, channels, 1, 1))
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, b"\0" * (4 * shape[0] * shape[1] * shape[2] ** 2), raw=True)
        for name, shape in (("first", first), ("middle", middle), ("last", last))
    ]
    kernels = ["first", *["middle"] * (layers - 1), "last"]
    nodes = [
        helper.make_node("Conv", [source, kernel], [target], pads=[1] * 4 if kernel == "middle" else [0] * 4)
        for source, kernel, target in zip(names, kernels, names[1:], strict=False)
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [value("picture", TensorProto.FLOAT, [1, 3, side, side])],
        [value("scores", TensorProto.FLOAT, [1, 2, side, side])],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "slow.onnx")
    (folder / "slow.yaml").write_text("classes: [ground, sky]\n")
    return folder / "slow.onnx"


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_camera_that_never_answers_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/road"
        with start_program(*run_into(tmp_path, address, "--set", "capture.open_timeout_s=60", *ONCE)) as program:
            server.settimeout(30)
            connection, _ = server.accept()
            with connection:
                said = ended(program, signal.SIGINT, within_s=PROMPT_S)
    assert "did not wait for capture" in said
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


class Silenced(BaseHTTPRequestHandler):
    """Sends `body`, then nothing more, and leaves the connection open."""

    body = b""
    closing = Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)
        self.wfile.flush()
        self.closing.wait(60)

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


def test_a_stream_that_falls_silent_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    images = (number_image(n, (96, 64)) for n in range(60))
    clip = write_video(tmp_path / "clip.ts", images, options={"bf": "0", "g": "10"})
    folder = tmp_path / "out"
    folder.mkdir()
    camera = type("Camera", (Silenced,), {"body": clip.read_bytes(), "closing": Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), camera) as server:
        serving = Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        settings = ("--set", "capture.read_timeout_s=60", "--set", "policy=every", *ONCE)
        address = f"http://127.0.0.1:{server.server_port}/live"
        try:
            with start_program(*run_into(folder, address, *settings)) as program:
                wait_until(frames_written(folder, 20), program)
                ended(program, signal.SIGTERM, within_s=PROMPT_S)
        finally:
            camera.closing.set()
            server.shutdown()
            serving.join()
    check_files(folder)


@BOTH
def test_while_it_waits_for_a_camera_that_went_away(tmp_path: Path, number: signal.Signals) -> None:
    """With the default options: it tries again and again, and cards go into the recording."""
    with rtsp_server() as (port, server):
        address = f"rtsp://127.0.0.1:{port}/live"
        with start_program(*run_into(tmp_path, address)) as program:
            wait_until(frames_written(tmp_path, 20), program)
            server.kill()
            wait_until(lambda: b'"refused"' in (tmp_path / ".o.partial.jsonl").read_bytes(), program)
            ended(program, number, within_s=PROMPT_S)
    check_files(tmp_path)


@BOTH
def test_before_anything_is_open_it_ends_without_a_word(number: signal.Signals, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "g.yaml")
    with (
        start_program("run", ENDLESS_DRIVE, tmp_path / "o.mp4", "--config", tmp_path / "g.yaml") as program,
        (tmp_path / "g.yaml").open("w"),  # waits until the program reads
    ):
        program.send_signal(number)
        assert program.communicate(timeout=30) == ("", "")
    assert program.returncode == -number
    assert not (tmp_path / "o.mp4").exists()


@BOTH
def test_a_second_signal_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/road"
        with start_program("run", address, tmp_path / "o.mp4", "--set", "capture.open_timeout_s=60", *ONCE) as program:
            server.settimeout(30)
            connection, _ = server.accept()
            with connection:
                program.send_signal(number)
                assert program.stderr is not None
                assert re.search("a second signal ends at once", program.stderr.readline())
                program.send_signal(number)
                assert program.wait(0.8) == 128 + number
    assert not (tmp_path / "o.mp4").exists()
