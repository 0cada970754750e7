"""The errors of this package. Every message is one line: what is wrong, where, and what is allowed.

    StreamSegError              exit code 1
      ConfigError        2      an invalid graph file, --set, side-car or argument; nothing has run yet
      SourceError        3      an input that is missing, unreachable, broken or refused
      NetworkError       4      a network or an engine that cannot be loaded or run
      OutputError        5      an output that cannot be written
      StageError         6      a stage that failed at a frame; wraps any other exception

Errors of libraries (PyAV, OpenCV, OpenVINO, pydantic, OSError) are converted where they occur:
`raise SourceError(...) from error`.
"""

from __future__ import annotations

import errno
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "refused", "unreachable", "auth", "dns", "not found", "not allowed", "no data", "frozen", "ended", "broken"
]
REASONS: tuple[Reason, ...] = (
    "refused", "unreachable", "auth", "dns", "not found", "not allowed", "no data", "frozen", "ended", "broken",
)  # fmt: skip
"""Reasons why a source delivers no images."""


class StreamSegError(Exception):
    """Base class of all errors that are reported in one line."""

    exit_code = 1


class ConfigError(StreamSegError):
    """A setting that is unknown, of the wrong type, out of range or contradictory."""

    exit_code = 2


class SourceError(StreamSegError):
    """An input that is missing, unreachable, broken or refused, for a `reason` of REASONS."""

    exit_code = 3

    def __init__(self, message: str, *, reason: Reason = "broken") -> None:
        super().__init__(message)
        self.reason: Reason = reason


class NetworkError(StreamSegError):
    """A network, side-car or engine that cannot be loaded or run."""

    exit_code = 4


class OutputError(StreamSegError):
    """An output that cannot be written."""

    exit_code = 5


class StageError(StreamSegError):
    """A stage that failed while working on a frame."""

    exit_code = 6


def describe_exception(error: BaseException) -> str:
    """Return type and message of an exception in one line."""
    return " ".join((f"{type(error).__name__}: {error}" if str(error) else type(error).__name__).split())


def explain_shortage(error: BaseException) -> str | None:
    """Return the resource that this machine lacks, as a limit or full memory makes it, None for any other error."""
    text = str(error)
    if isinstance(error, MemoryError) or "failed to map segment" in text or "Cannot allocate memory" in text:
        return "not enough memory (see ulimit -v)"
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):  # also of zmq.ZMQError, which is no OSError
        return "too many open files; allow more (ulimit -n)"
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return "no further thread can be started; allow more threads or memory (ulimit -u, ulimit -v)"
    return None
