"""A signal at any moment of a run, from its first one on: exit code 0, whole files, no traceback."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, active_count

import pytest

from stream_seg.cli import run as run_module
from stream_seg.runtime.signals import StopSignals
from tests.support.clips import read_video
from tests.support.program import ENDLESS_DRIVE, count_lines, read_json, run_cli, start_program, wait_until
from tests.support.time_limits import TimeLimit

STOP_S = 5.0
"""Limit of the time from a signal to the end: a network may be loading."""


def handles_sigterm(program: subprocess.Popen[str]) -> bool:
    """Return whether a process has a handler for SIGTERM: Python itself has none."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def stop_at(delay_s: float, number: signal.Signals, folder: Path, source: str, time_limit: TimeLimit) -> None:
    """Run a program, send a signal `delay_s` after it began to handle signals, and check what it leaves."""
    outputs = (folder / "o.mp4", folder / "o.jsonl", "--report", folder / "run.json")
    with start_program("run", source, *outputs, "--overwrite") as program:
        wait_until(lambda: handles_sigterm(program), program)
        time.sleep(delay_s)
        with time_limit(STOP_S):
            program.send_signal(number)
            _, log = program.communicate(timeout=60)
    assert program.returncode == 0, log
    assert "Traceback" not in log
    names = {path.name for path in folder.iterdir()}
    assert names <= {"o.mp4", "o.jsonl", "run.json"}, "nothing is left unfinished"
    if "run.json" in names:
        written = read_json(folder / "run.json")["frames"]["by_output"]
        assert written["records"] == (count_lines(folder / "o.jsonl") if "o.jsonl" in names else 0)
        assert written["write"] == (len(read_video(folder / "o.mp4")) if "o.mp4" in names else 0)


SEED = 20261130


def moments(count: int, *, longest_s: float) -> list[tuple[float, signal.Signals, str]]:
    """Return seeded moments, each with a signal and a source: one that goes on, and one that ends by itself."""
    generator = random.Random(SEED)
    return [
        (
            round(generator.uniform(0, longest_s), 3),
            generator.choice([signal.SIGINT, signal.SIGTERM]),
            ENDLESS_DRIVE + generator.choice(["", "&paced=1", "&frames=40", "&frames=5"]),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("delay_s", "number", "source"), [(0.0, signal.SIGINT, ENDLESS_DRIVE), *moments(4, longest_s=1.5)]
)
def test_at_a_few_moments(
    delay_s: float, number: signal.Signals, source: str, tmp_path: Path, time_limit: TimeLimit
) -> None:
    stop_at(delay_s, number, tmp_path, source, time_limit)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_at_forty_moments(tmp_path: Path, time_limit: TimeLimit) -> None:
    for index, (delay_s, number, source) in enumerate(moments(40, longest_s=2.5)):
        folder = tmp_path / str(index)
        folder.mkdir()
        stop_at(delay_s, number, folder, source, time_limit)


def test_after_the_last_frame_a_signal_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It arrives between the end of the graph and the report."""
    write_json = run_module.write_json

    def interrupt(*arguments: object, **keys: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write_json(*arguments, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "write_json", interrupt)
    arguments = ("run", f"{ENDLESS_DRIVE}&frames=5", tmp_path / "o.jsonl", "--report", tmp_path / "run.json")
    assert run_cli(*arguments, "--quiet") == 0
    assert read_json(tmp_path / "run.json")["frames"]["written"] == 5
    assert count_lines(tmp_path / "o.jsonl") == 5


def test_handlers_are_restored_and_their_thread_ends() -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before, threads, stop = handlers(), active_count(), Event()
    with StopSignals(stop):
        assert handlers() != before
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(30)
    assert (handlers(), active_count()) == (before, threads)
    assert signal.set_wakeup_fd(-1) == -1


def test_little_is_imported_before_signals_are_handled() -> None:
    """Until then a signal ends Python itself, with exit code 130 or 143, or with a traceback."""
    script = "import stream_seg.cli.program, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    packages = {name.partition(".")[0] for name in run.stdout.split()}
    assert packages & {"stream_seg", "numpy", "cv2", "av", "typer", "click", "rich", "pydantic"} == {"stream_seg"}
    assert "importlib.resources" not in run.stdout.split()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("with StopSignals(): os.kill(os.getpid(), 15); time.sleep(30)", 0),
        ("with StopSignals(Event()): os.kill(os.getpid(), 15); time.sleep(0.2); sys.exit(3)", 3),
        (
            "with StopSignals(Event()): [os.kill(os.getpid(), 15) or time.sleep(0.2) for _ in 'ab']",
            143,
        ),
        ("with StopSignals() as signals: signals.stop_with(Event()); os.kill(os.getpid(), 2); sys.exit(3)", 3),
        ("os.kill(os.getpid(), 15); time.sleep(30)", -15),
    ],
    ids=["nothing is open", "requested", "forced", "from now on", "without"],
)
def test_a_first_and_a_second_signal(body: str, code: int) -> None:
    script = "import os, sys, time; from threading import Event; from stream_seg.runtime.signals import StopSignals\n"
    run = subprocess.run([sys.executable, "-c", script + body], capture_output=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (code, b"")
