"""Run the command line: in this process, or as a separate program that can receive signals."""

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

ENDLESS_DRIVE = "synth://road?size=96x64"
"""A synthetic drive without an end, small and cheap to draw."""


def find_free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_cli(*arguments: object) -> int:
    """Run `stream-seg ARGUMENTS` in this process, and return its exit code."""
    from stream_seg.cli.program import (
        main,  # not above: conftest.py imports this module, and most tests need no command
    )

    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def run_failing(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run `stream-seg run ARGUMENTS`, which fails with one line. Return the exit code and the line."""
    capfd.readouterr()
    code = run_cli("run", *arguments)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("stream-seg: ")
    return code, lines[0]


@contextmanager
def start_program(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start `stream-seg ARGUMENTS` as a separate program, and kill it at the end of the body if it still runs."""
    command = [sys.executable, "-m", "stream_seg", *(str(argument) for argument in arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


def wait_until(
    condition: Callable[[], object], program: subprocess.Popen[str] | None = None, *, within_s: float = 30.0
) -> None:
    """Poll a condition every 10 ms. Fail after `within_s` seconds, or when `program` ends."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert program is None or program.poll() is None, program.communicate()
        assert time.monotonic() < end_s, f"the condition did not hold within {within_s:g} s"
        time.sleep(0.01)


def count_lines(path: Path) -> int:
    """Return the number of complete lines of a file; 0 if it does not exist."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def list_folder(folder: Path) -> list[str]:
    """Return the names in a folder, hidden ones included."""
    return sorted(os.listdir(folder))


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files of a key and of a certificate for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is needed to make a certificate")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {certificate}"
    command += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, certificate
