"""New processes for what is measured: they share no memory, no caches and no threads with the benchmark."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stream_seg.errors import StreamSegError

LONGEST_RUN_S = 900.0


def run_stream_seg(*arguments: str) -> None:
    """Run `stream-seg` in a new process. Raises StreamSegError with its last line of output if it fails."""
    run_python("-m", "stream_seg", *arguments)


def run_python(*arguments: str) -> None:
    """Run Python in a new process. Raises StreamSegError with its last line of output if it fails, or after 15 min."""
    name = " ".join(arguments[:2])
    try:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=LONGEST_RUN_S)
    except subprocess.TimeoutExpired as error:
        raise StreamSegError(f"{name} did not end in {LONGEST_RUN_S:g} s") from error
    if done.returncode:
        raise StreamSegError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{name} failed")


def call_in_process(function: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """Call a function in a new process, which shares no memory with this one, and return its result."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, path))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError as error:
        raise StreamSegError(f"{path}: the process that ran it died") from error
    finally:
        process.join()
    if isinstance(result, str):
        raise StreamSegError(result)
    return dict(result)


def _send_result(sender: Connection, function: Callable[[Path], dict[str, Any]], path: Path) -> None:
    """Send the result of a function, or the message of its error."""
    try:
        sender.send(function(path))
    except StreamSegError as error:
        sender.send(str(error))
