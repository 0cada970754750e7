"""The process of the command line: its standard streams, its signals, and the line and exit code of an error.

Nothing heavy is imported here: `run` handles SIGINT and SIGTERM before the import of the other modules.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import wraps
from typing import Any, TextIO, cast

from stream_seg.cli.usage import describe_usage
from stream_seg.errors import ConfigError, OutputError, StreamSegError, describe_exception, explain_shortage
from stream_seg.redact import redact_message
from stream_seg.runtime.signals import StopSignals

LIBRARIES = "on Debian and Ubuntu: apt install libgl1 libglib2.0-0"
LEAST_ADDRESS_SPACE = 2**30
STREAM_ERRORS = {errno.ENOSPC: "disk full", errno.EDQUOT: "disk quota used up", errno.EFBIG: "file too large"}
"""Errors of writing to standard output, whose OSError names no file."""


def program(*, only: str | None = None, name: str | None = None, install: str | None = None) -> None:
    """Run `main` with the arguments of this process, and end the process.

    A stage may hang in foreign code, such as the driver of a camera; a normal exit would unload that code under its
    thread, and crash.
    """
    _open_standard_streams()
    faulthandler.enable(2)  # a crash in a library, or SIGABRT from systemd's watchdog, prints where it happened
    code: str | int | None = 0
    with StopSignals() if only == "run" or "run" in sys.argv[1:] else nullcontext() as signals:
        try:
            main(only=only, name=name, install=install, signals=signals)
        except SystemExit as end:
            code = end.code
        number = _flush_output(code if isinstance(code, int) else int(code is not None))
        if any(thread.daemon for thread in threading.enumerate()):
            sys.stderr.flush()
            os._exit(number)
    sys.exit(number)


def main(
    arguments: list[str] | None = None,
    *,
    only: str | None = None,
    name: str | None = None,
    install: str | None = None,
    signals: StopSignals | None = None,
) -> None:
    """Run a command. A known error becomes one line on standard error and its exit code.

    `only`: the arguments are those of this command. `name`: the name of the program in help texts. `install`: what to
    do if a package is missing, by default to install again. `signals` handles the signals of this process; without it,
    Ctrl-C ends the process until the command handles it.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL) if signals is None else None  # no traceback from an import
    try:
        if signals is not None:
            _require_address_space()
        from typer.main import get_group

        from stream_seg.cli.app import app
        from stream_seg.cli.names import fill_names

        commands = get_group(app)
        command = commands.commands[only] if only else commands
        fill_names(command, sys.argv[1:] if arguments is None else arguments)
        for part in ("make_context", "invoke"):  # both raise errors about arguments
            setattr(command, part, _translating(getattr(command, part)))
        command.main(arguments, prog_name=name, obj=signals)
    except StreamSegError as error:
        print(f"stream-seg: {redact_message(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ImportError as error:
        from stream_seg.installation import reinstall_hint

        advice = explain_shortage(error) or install or f"install again: {reinstall_hint()}; {LIBRARIES}"
        print(f"stream-seg: {redact_message(str(error))}; {advice}", file=sys.stderr)
        sys.exit(1)
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _require_address_space() -> None:
    """Raise StreamSegError for a limit below which the libraries of a run crash while they are loaded."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit not in (resource.RLIM_INFINITY, -1) and limit < LEAST_ADDRESS_SPACE:
        raise StreamSegError(
            f"not enough memory: the limit on address space is {limit // 2**20} MiB, and a run needs "
            f"{LEAST_ADDRESS_SPACE // 2**20} (ulimit -v)"
        )


def _translating(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of click, so that its errors show no password, and before click takes some for an abort."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except (StreamSegError, ImportError):
            raise
        except (BrokenPipeError, SystemExit) as end:
            if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):  # rich makes it one
                raise
            sys.exit(0)  # whoever reads standard output has read enough
        except Exception as error:
            if translated := _translate(error):
                raise translated from error
            if isinstance(message := getattr(error, "message", None), str):
                error.message = redact_message(message)  # type: ignore[attr-defined]
            raise

    return call


def _translate(error: Exception) -> StreamSegError | None:
    """Return the error in one line, for those that no module maps because they may come from anywhere."""
    if usage := describe_usage(error):
        return ConfigError(usage)
    if shortage := explain_shortage(error):
        return StreamSegError(f"{shortage}: {describe_exception(error)}")
    if isinstance(error, EOFError):  # click would say "Aborted."
        return StreamSegError(f"unexpected end of data: {describe_exception(error)}")
    if isinstance(error, OSError) and error.filename is None and error.errno in STREAM_ERRORS:
        return OutputError(f"cannot write to standard output: {STREAM_ERRORS[error.errno]}")
    return None


class _LossyStream:
    """Standard error without errors: neither a full disk nor a terminal that has gone ends a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _open_standard_streams() -> None:
    """Open closed standard streams: else an output file gets the number of one, and messages get into the file."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115 - open as long as the process
    sys.stderr = cast(TextIO, _LossyStream(sys.stderr or open(2, "w")))  # noqa: SIM115


def _flush_output(code: int) -> int:
    """Write what is left of standard output. Return the exit code, 5 instead of 0 if that fails."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        if not code:  # else an error has been reported, perhaps this one
            reason = STREAM_ERRORS.get(error.errno or 0) or error.strerror
            print(f"stream-seg: cannot write to standard output: {reason}", file=sys.stderr)
            code = OutputError.exit_code
    else:
        return code
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest would fail again at the end of Python
    return code
