"""A stage that hangs is noticed: log, metric and health while Python runs, the end of the program where it cannot."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from stream_seg.cli.guard import guard_process
from stream_seg.config.document import WatchdogConfig
from tests.support.program import (
    ENDLESS_DRIVE,
    count_lines,
    find_free_port,
    read_json,
    run_cli,
    start_program,
    wait_until,
)
from tests.support.time_limits import TimeLimit

HANG = """
import ctypes, time
from dataclasses import dataclass
from pathlib import Path

@dataclass
class Hang:
    call: str
    frame: int

    def __call__(self, frames):
        for frame in frames:
            yield frame
            if frame.seq >= self.frame:  # the link to this stage may drop a frame
                Path(__file__).with_name("hangs").touch()
                eval(self.call)
"""
WITH_GIL, WITHOUT_GIL = "ctypes.PyDLL(None).sleep({})", "time.sleep({})"
PAGES = ("metrics", "page")


def write_graph(folder: Path, call: str, *, frame: int = 5, **watchdog: float) -> Path:
    """Write a graph whose filter makes a call after a frame, behind a paced drive."""
    (folder / "hang.py").write_text(HANG)
    graph = {
        "stages": {
            "synthetic": {"width": 96, "height": 64, "paced": True},
            "hang": {"policy": "every", "stage": "hang.py:Hang", "input": "synthetic", "call": call, "frame": frame},
            "segment": {"input": "hang"},
            "records": {"input": "segment", "path": str(folder / "o.jsonl")},
        },
        "watchdog": watchdog,
        "overwrite": True,
    }
    (folder / "graph.yaml").write_text(json.dumps(graph))
    return folder / "graph.yaml"


def fetch(port: int, path: str) -> tuple[int, str]:
    """Return status and text; (0, "") as long as nobody answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except URLError:
        return 0, ""


def test_a_stage_that_hangs_is_logged_measured_and_unhealthy_and_named_at_the_end(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, WITHOUT_GIL.format(1000), stall_s=1)
    ports = {name: find_free_port() for name in PAGES}
    arguments = ("run", "--config", graph, "--metrics-port", ports["metrics"], "--report", tmp_path / "run.json")
    page = ("--set", "serve.input=synthetic", "--set", f"serve.port={ports['page']}")
    document = json.loads(graph.read_text())
    document["stages"]["serve"] = {"input": "synthetic"}
    graph.write_text(json.dumps(document))
    with start_program(*arguments, *page, "--log-format", "json", "--quiet") as program:
        expected = r"stage hang makes no progress: after frame synthetic:\d+ for \d+ s"
        for name in PAGES:
            wait_until(lambda name=name: re.search(expected, fetch(ports[name], "/healthz")[1]), program)
            assert fetch(ports[name], "/healthz")[0] == 503
        metrics = fetch(ports["metrics"], "/metrics")[1]
        assert 'stream_seg_stage_stalled{stage="hang"} 1.0' in metrics
        assert 'stream_seg_stage_stalled{stage="records"} 0.0' in metrics
        wait_until(lambda: count_lines_of(tmp_path), program)
        program.send_signal(signal.SIGTERM)
        _, log = program.communicate(timeout=60)
    assert program.returncode == 6, log
    *records, last = log.splitlines()
    assert any(re.fullmatch(expected, json.loads(record)["message"]) for record in records)
    assert re.fullmatch(r"stream-seg: gave up on hang \(after frame synthetic:\d+\), which did not end", last)
    assert count_lines(tmp_path / "o.jsonl") > 0  # what came before the hang is kept
    assert read_json(tmp_path / "run.json")["error"] in last


def test_a_run_without_a_hang_is_healthy_and_ends_with_0(tmp_path: Path) -> None:
    """The same stage takes half a second, which is within the limit."""
    graph, port = write_graph(tmp_path, WITHOUT_GIL.format(0.5), stall_s=8), find_free_port()
    with start_program("run", "--config", graph, "--metrics-port", port, "--quiet") as program:
        wait_until(lambda: count_lines_of(tmp_path) > 6, program)
        assert fetch(port, "/healthz") == (200, "ok\n")
        assert 'stream_seg_stage_stalled{stage="hang"} 0.0' in fetch(port, "/metrics")[1]
        program.send_signal(signal.SIGTERM)
        _, log = program.communicate(timeout=60)
    assert (program.returncode, log) == (0, "")


def count_lines_of(folder: Path) -> int:
    """Return the number of records in a folder, in whichever file they grow."""
    return sum(count_lines(path) for path in folder.glob("*.jsonl"))


def test_a_call_that_keeps_the_gil_ends_the_program_with_the_stacks(tmp_path: Path) -> None:
    graph = write_graph(tmp_path, WITH_GIL.format(1000), freeze_s=3)
    with start_program("run", "--config", graph, "--quiet") as program:
        _, log = program.communicate(timeout=60)
    assert program.returncode == 1
    assert log.startswith("Timeout (0:00:03)!\n")
    assert re.search(r'File ".*/hang\.py", line \d+ in __call__', log)


@pytest.mark.parametrize("crash", ["__import__('os').abort()", "ctypes.string_at(0)"], ids=["SIGABRT", "SIGSEGV"])
def test_a_crash_prints_the_stacks(crash: str, tmp_path: Path) -> None:
    """SIGABRT is also what systemd's watchdog sends."""
    with start_program("run", "--config", write_graph(tmp_path, crash), "--quiet") as program:
        _, log = program.communicate(timeout=60)
    assert program.returncode in (-signal.SIGABRT, -signal.SIGSEGV)
    assert log.startswith("Fatal Python error: ")
    assert re.search(r'File ".*/hang\.py", line \d+ in __call__', log)


@pytest.mark.parametrize(
    ("call", "freeze_s"),
    [("ctypes.PyDLL(None).sleep(1)", 0.1), ("ctypes.PyDLL(None).sleep(1)", 0), ("time.sleep(3)", 2)],
    ids=["with the GIL", "disabled", "without the GIL"],
)
def test_only_a_call_that_keeps_the_gil_ends_the_program(call: str, freeze_s: float) -> None:
    script = (
        "import ctypes, time; from stream_seg.cli.guard import guard_process\n"
        f"with guard_process({freeze_s}, alive=lambda: True): {call}"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, "Timeout" in run.stderr) == ((1, True) if freeze_s == 0.1 else (0, False))


def test_a_program_ends_itself_before_systemd_does() -> None:
    """WATCHDOG=1 comes from a thread, so freeze_s has to pass first; both are far above what a busy machine needs."""
    unit = (Path(__file__).parents[2] / "monitoring" / "stream-seg.service").read_text()
    limit_s = int(re.findall(r"^WatchdogSec=(\d+)$", unit, re.MULTILINE)[0])
    assert 30 <= WatchdogConfig().freeze_s <= limit_s - 30


@contextmanager
def notify_socket(monkeypatch: pytest.MonkeyPatch, address: str) -> Iterator[list[str]]:
    """Receive what a program sends to systemd at this address; yield the list of the states so far."""
    received: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)

        def receive() -> None:
            while state := channel.recv(4096):
                received.append(state.decode())

        thread = Thread(target=receive)
        thread.start()
        try:
            yield received
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", channel.getsockname())
            thread.join()


@pytest.mark.parametrize("abstract", [False, True], ids=["file", "abstract"])
def test_systemd_is_told_that_the_program_runs_lives_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    monkeypatch.setattr("stream_seg.cli.guard.INTERVAL_S", 0.01)
    address = f"@stream-seg-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with notify_socket(monkeypatch, address) as received:
        assert run_cli("run", f"{ENDLESS_DRIVE}&frames=8", tmp_path / "o.jsonl", "--quiet") == 0
        wait_until(lambda: "STOPPING=1" in received)
    ready, stopping = received.index("READY=1"), received.index("STOPPING=1")
    assert "WATCHDOG=1" in received[ready:stopping]
    assert set(received) == {"READY=1", "WATCHDOG=1", "STOPPING=1"}


def test_systemd_is_not_told_that_a_blocked_program_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.cli.guard.INTERVAL_S", 0.01)
    alive = True
    with (
        notify_socket(monkeypatch, str(tmp_path / "notify")) as received,
        guard_process(0, alive=lambda: alive),
    ):
        wait_until(lambda: len(received) > 3)
        alive = False
        wait_until(lambda: len(received) == settle(received))
        number = len(received)
        time.sleep(0.1)  # ten intervals: more of them would only make a failure more likely
        assert len(received) == number
        alive = True
        wait_until(lambda: len(received) > number)
    assert set(received) == {"WATCHDOG=1"}


def settle(received: list[str]) -> int:
    """Return the number of states, a few intervals later."""
    before = len(received)
    time.sleep(0.05)
    return before


def test_without_systemd_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("", "no path", str(tmp_path / "missing")):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with guard_process(0, alive=lambda: True):
            pass
    assert list(tmp_path.iterdir()) == []


HANGS = {
    "sleep": WITHOUT_GIL.format(1000),
    "lock": "__import__('threading').Event().wait()",
    "loop": "exec('while True: pass')",
    "gil": WITH_GIL.format(1000),
}
SEED, SOAK_S = 7, 60.0


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_seeded_hangs_for_a_minute(tmp_path: Path, time_limit: TimeLimit) -> None:
    """Hangs of every kind at seeded frames: each is noticed within 10 s with the default limits but for the freeze."""
    generator, begin_s, noticed = random.Random(SEED), time.monotonic(), Counter[str]()
    while time.monotonic() - begin_s < SOAK_S or len(noticed) < len(HANGS):
        kind = generator.choice([kind for kind in HANGS if noticed[kind] == min(noticed[kind] for kind in HANGS)])
        folder = tmp_path / f"{sum(noticed.values())} {kind}"
        folder.mkdir()
        frame, port = generator.randrange(40), find_free_port()
        graph = write_graph(folder, HANGS[kind], frame=frame, freeze_s=5)
        arguments = ("run", "--config", graph, "--metrics-port", port, "--quiet")
        with start_program(*arguments) as program:
            if kind == "gil":
                _, log = program.communicate(timeout=60)
                assert "hang.py" in log
            else:
                wait_until((folder / "hangs").exists, program, within_s=60)
                with time_limit(10):
                    wait_until(lambda port=port: fetch(port, "/healthz")[0] == 503, program, within_s=120)
                program.send_signal(signal.SIGTERM)
                _, log = program.communicate(timeout=60)
                assert "gave up on hang (after frame synthetic:" in log
        assert program.returncode == (1 if kind == "gil" else 6), log
        noticed[kind] += 1
    print(dict(noticed))


@pytest.mark.soak
def test_a_busy_machine_raises_no_alarm(tmp_path: Path) -> None:
    """Four processes that take all they get, on two cores: no stage stalls within 8 s, and no timer of 10 s fires."""
    hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(4)]
    try:
        clip = "synth://road?size=960x540&paced=1&frames=600"
        with start_program("run", clip, tmp_path / "o.mp4", "--quiet", "--set", "watchdog.freeze_s=10") as program:
            _, log = program.communicate(timeout=180)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert (program.returncode, log) == (0, "")
