"""The real program for tests: in this process, or as one of its own that gets signals."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stream_seg.cli.app import main

DRAWN = "synth://road?size=96x64"
"""An endless drive, cheap to draw."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def exit_code(*arguments: object) -> int:
    """What `stream-seg ARGUMENTS` returns, run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The exit code and the one line of a run that fails."""
    capfd.readouterr()
    code = exit_code("run", *arguments)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("stream-seg: ")
    return code, lines[0]


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`stream-seg ARGUMENTS` as a program of its own; ended with the body, should it still run."""
    command = [sys.executable, "-m", "stream_seg.cli.app", *(str(argument) for argument in arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


def wait_until(there: Callable[[], bool], program: subprocess.Popen[str], *, within_s: float = 30.0) -> None:
    """Look every 10 ms until it is there, while the program runs."""
    end = time.monotonic() + within_s
    while not there():
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def lines_in(path: Path) -> int:
    """How many lines a file has so far; 0 without it."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def read_json(path: Path) -> Any:
    """What a JSON file says."""
    return json.loads(path.read_text(encoding="utf-8"))


def left_in(folder: Path) -> list[str]:
    """Every name in a folder, hidden ones too."""
    return sorted(os.listdir(folder))


def certified(folder: Path) -> tuple[Path, Path]:
    """The files of a key and of a certificate for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here to make a certificate")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {certificate}"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, certificate
