"""What can go wrong, as a small tree. Every message is one line that says what, where and what is allowed.

    StreamSegError              exit code 1
      ConfigError        2      the YAML, --set, a side-car, an argument: refused before anything runs
      SourceError        3      an input that is missing, unreachable, broken or refused
      NetworkError       4      a network or an engine that cannot be loaded or run
      OutputError        5      an output that cannot be written
      StageError         6      a stage that failed at a frame; wraps an error that is none of the above

Foreign errors (PyAV, OpenCV, OpenVINO, pydantic, OSError) are mapped where they enter: `raise SourceError(...) from e`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "refused", "unreachable", "auth", "dns", "not found", "not allowed", "no data", "frozen", "ended", "broken"
]
REASONS: tuple[Reason, ...] = (
    "refused", "unreachable", "auth", "dns", "not found", "not allowed", "no data", "frozen", "ended", "broken",
)  # fmt: skip
"""Why a source does not deliver."""


class StreamSegError(Exception):
    """The root: whatever this program knows to say in one line."""

    exit_code = 1


class ConfigError(StreamSegError):
    """A setting that is unknown, of the wrong type, out of range or contradictory."""

    exit_code = 2


class SourceError(StreamSegError):
    """An input that is missing, unreachable, broken or refused; `reason` says which, of REASONS."""

    exit_code = 3

    def __init__(self, message: str, *, reason: Reason = "broken") -> None:
        super().__init__(message)
        self.reason: Reason = reason


class NetworkError(StreamSegError):
    """A network, its side-car or its engine that cannot be loaded or run."""

    exit_code = 4


class OutputError(StreamSegError):
    """An output that cannot be written."""

    exit_code = 5


class StageError(StreamSegError):
    """A stage that failed while working on a frame."""

    exit_code = 6
