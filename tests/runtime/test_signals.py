"""SIGINT and SIGTERM to the real program: it ends promptly with exit code 0, playable files and a true report."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from threading import Event, Thread
from typing import TypeAlias

import pytest
from onnx import TensorProto, helper, save

from tests.support.clips import is_ordinary_mp4, number_image, read_video, write_video
from tests.support.program import ENDLESS_DRIVE, count_lines, read_json, start_program, wait_until
from tests.support.rtsp_server import rtsp_server
from tests.support.time_limits import TimeLimit

STOP_S, STOP_LOADING_S = 2.0, 5.0
"""Limits of the time from a signal to the end, and while a network is loaded."""
NO_RECONNECT = ("--set", "capture.reconnect=false")
BOTH_SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])

Stop: TypeAlias = Callable[..., str]


@pytest.fixture
def stop(time_limit: TimeLimit) -> Stop:
    """Send a signal to a program, which has to end with exit code 0. Returns its log."""

    def stop(program: subprocess.Popen[str], number: signal.Signals, *, within_s: float = STOP_S) -> str:
        with time_limit(within_s):
            program.send_signal(number)
            _, log = program.communicate(timeout=60)
        assert program.returncode == 0, log
        assert "Traceback" not in log
        return log

    return stop


def check_files(folder: Path) -> None:
    """Assert that the files in a folder have as many frames as the report says, and that there are no others."""
    written = read_json(folder / "run.json")["frames"]["by_output"]
    lines = (folder / "o.jsonl").read_text().splitlines()
    before_the_first_image = len([*takewhile(lambda line: '"signal"' in line, lines)])  # a video does not have these
    assert len(read_video(folder / "o.mp4")) == written["write"] - before_the_first_image > 0
    assert is_ordinary_mp4(folder / "o.mp4")
    assert count_lines(folder / "o.jsonl") == written["records"] > 0
    assert {path.name for path in folder.iterdir()} == {"o.mp4", "o.jsonl", "run.json"}


def arguments_for(folder: Path, source: str, *options: object) -> tuple[object, ...]:
    """Return the arguments of a run; with --overwrite, live outputs have no time in their names."""
    outputs = (folder / "o.mp4", folder / "o.jsonl", "--report", folder / "run.json", "--overwrite")
    return ("run", source, *outputs, *options)


def frames_written(folder: Path, number: int) -> Callable[[], bool]:
    return lambda: count_lines(folder / "o.partial.jsonl") >= number


@BOTH_SIGNALS
@pytest.mark.parametrize("paced", ["&paced=1", ""], ids=["live", "recorded"])
def test_while_it_runs(tmp_path: Path, stop: Stop, number: signal.Signals, paced: str) -> None:
    with start_program(*arguments_for(tmp_path, ENDLESS_DRIVE + paced, "--metrics-port", 0)) as program:
        wait_until(frames_written(tmp_path, 20), program)
        log = stop(program, number)
    assert "stopping" in log
    check_files(tmp_path)


@BOTH_SIGNALS
def test_while_a_network_loads(tmp_path: Path, unused_port: int, stop: Stop, number: signal.Signals) -> None:
    slow = write_slow_network(tmp_path / "networks")
    settings = ("--set", f"segment.network={slow}", "--set", "segment.precision=f32", "--metrics-port", unused_port)
    folder = tmp_path / "out"
    folder.mkdir()
    with start_program(*arguments_for(folder, ENDLESS_DRIVE, *settings)) as program:
        wait_until(lambda: is_served(unused_port), program)  # the metrics are served just before the stages start
        log = stop(program, number, within_s=STOP_LOADING_S)
    assert re.search("did not wait for .*segment", log)  # and on a busy machine for the capture stage
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    assert read_json(folder / "run.json")["frames"]["written"] == 0


def write_slow_network(folder: Path) -> Path:
    """Write a network that needs about a minute for an image, so for the one that an engine runs when it is opened."""
    folder.mkdir()
    channels, side, layers = 64, 1024, 60
    value = helper.make_tensor_value_info
    names = ["image", *(f"layer {n}" for n in range(layers)), "scores"]
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
        [value("image", TensorProto.FLOAT, [1, 3, side, side])],
        [value("scores", TensorProto.FLOAT, [1, 2, side, side])],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "slow.onnx")
    (folder / "slow.yaml").write_text("classes: [ground, sky]\n")
    return folder / "slow.onnx"


def is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_while_a_camera_does_not_answer(tmp_path: Path, stop: Stop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/road"
        with start_program(
            *arguments_for(tmp_path, address, "--set", "capture.open_timeout_s=60", *NO_RECONNECT)
        ) as program:
            server.settimeout(30)
            connection, _ = server.accept()
            with connection:
                log = stop(program, signal.SIGINT)
    assert "did not wait for capture" in log
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


class SilentCamera(BaseHTTPRequestHandler):
    """An HTTP camera that sends `body` and then nothing more, with the connection open."""

    body = b""
    close = Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)
        self.wfile.flush()
        self.close.wait(60)

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean of request logs."""


def test_while_a_stream_is_silent(tmp_path: Path, stop: Stop) -> None:
    images = (number_image(n, (96, 64)) for n in range(60))
    clip = write_video(tmp_path / "clip.ts", images, options={"bf": "0", "g": "10"})
    folder = tmp_path / "out"
    folder.mkdir()
    camera = type("Camera", (SilentCamera,), {"body": clip.read_bytes(), "close": Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), camera) as server:
        serving = Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        settings = ("--set", "capture.read_timeout_s=60", "--set", "policy=every", *NO_RECONNECT)
        address = f"http://127.0.0.1:{server.server_port}/live"
        try:
            with start_program(*arguments_for(folder, address, *settings)) as program:
                wait_until(frames_written(folder, 20), program)
                stop(program, signal.SIGTERM)
        finally:
            camera.close.set()
            server.shutdown()
            serving.join()
    check_files(folder)


@BOTH_SIGNALS
def test_while_it_reconnects(tmp_path: Path, stop: Stop, number: signal.Signals) -> None:
    """With the default options it tries again and again, and placeholder frames are recorded."""
    with rtsp_server() as (port, server):
        address = f"rtsp://127.0.0.1:{port}/live"
        with start_program(*arguments_for(tmp_path, address)) as program:
            wait_until(frames_written(tmp_path, 20), program)
            server.kill()
            wait_until(lambda: b'"refused"' in (tmp_path / "o.partial.jsonl").read_bytes(), program)
            stop(program, number)
    check_files(tmp_path)


@BOTH_SIGNALS
def test_before_anything_is_open_it_ends_without_output(number: signal.Signals, tmp_path: Path, stop: Stop) -> None:
    os.mkfifo(tmp_path / "g.yaml")
    with (
        start_program("run", ENDLESS_DRIVE, tmp_path / "o.mp4", "--config", tmp_path / "g.yaml") as program,
        (tmp_path / "g.yaml").open("w"),  # waits until the program reads
    ):
        assert stop(program, number) == ""
    assert not (tmp_path / "o.mp4").exists()


BLOCKING = """
import ctypes
from pathlib import Path

mutex = ctypes.create_string_buffer(64)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
Path(__file__).with_name("reached").touch()
ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@BOTH_SIGNALS
def test_while_the_main_thread_is_blocked_in_a_library(number: signal.Signals, tmp_path: Path, stop: Stop) -> None:
    """Handlers in Python would wait for it for ever."""
    (tmp_path / "blocking.py").write_text(BLOCKING)
    (tmp_path / "g.yaml").write_text("stages: {synthetic: {}, block: {stage: 'blocking.py:Block', input: synthetic}}")
    with start_program("run", "--config", tmp_path / "g.yaml") as program:
        wait_until((tmp_path / "reached").exists, program)
        assert stop(program, number) == ""


@BOTH_SIGNALS
def test_a_second_signal_ends_it_at_once(number: signal.Signals, tmp_path: Path, time_limit: TimeLimit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/road"
        with start_program(
            *("run", address, tmp_path / "o.mp4", "--overwrite", "--set", "capture.open_timeout_s=60"), *NO_RECONNECT
        ) as program:
            server.settimeout(30)
            connection, _ = server.accept()
            with connection:
                program.send_signal(number)
                assert program.stderr is not None
                assert re.search("a second signal ends at once", program.stderr.readline())
                with time_limit(0.8):
                    program.send_signal(number)
                    assert program.wait(60) == 128 + number
    assert not (tmp_path / "o.mp4").exists()
