"""The format of the log: text lines on a terminal, JSON lines elsewhere.

Repeated messages are limited in rate, and passwords are removed from URLs. A record names its stream and frame with
`extra={"stream": ..., "seq": ...}`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from stream_seg.redact import redact_message

if TYPE_CHECKING:
    from rich.console import Console

LogFormat: TypeAlias = Literal["auto", "text", "json"]
CONTEXT = ("stream", "seq")
"""Attributes of a record that name its stream and frame."""
BURST, BURST_S = 5, 10.0
"""At most BURST records of one message are written in BURST_S seconds; the next record says how many were not."""


def configure(*, verbose: bool, log_format: LogFormat = "auto", console: Console | None = None) -> None:
    """Write the log to standard error: from INFO on with `verbose`, otherwise warnings and errors only.

    `console`, if there is one, prints the lines above its progress bar. Warnings of Python and its libraries are part
    of the log.
    """
    handler = logging.StreamHandler() if console is None else ConsoleHandler(console)
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextLines() if text else JsonLines())
    logging.captureWarnings(True)
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    for before in [h for h in root.handlers if isinstance(h.formatter, JsonLines | TextLines)]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("stream_seg").setLevel(logging.DEBUG if verbose else logging.NOTSET)


class ConsoleHandler(logging.Handler):
    """Print records on a console, above its progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; a line is broken by the terminal alone."""
        try:
            self._console.print(self.format(record), soft_wrap=True)
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)


def get_message(record: logging.LogRecord) -> str:
    """Return the message of a record without passwords, and the number of records like it that were not written."""
    dropped = getattr(record, "dropped", 0)
    return redact_message(record.getMessage()) + (f" (and {dropped} more like it)" if dropped else "")


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, and, where known, stream, seq and error."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": get_message(record),
            **{name: getattr(record, name) for name in CONTEXT if hasattr(record, name)},
        }
        if record.exc_info:
            entry["error"] = redact_message(self.formatException(record.exc_info))
        return json.dumps(entry, default=str)


class TextLines(logging.Formatter):
    """One line per record, such as `14:03:07 WARNING front:1234 message`; the traceback of an exception follows."""

    def format(self, record: logging.LogRecord) -> str:
        context = ":".join(str(getattr(record, name)) for name in CONTEXT if hasattr(record, name))
        parts = (self.formatTime(record, "%H:%M:%S"), record.levelname, context, get_message(record))
        line = " ".join(part.replace("\n", " ") for part in parts if part)
        return f"{line}\n{redact_message(self.formatException(record.exc_info))}" if record.exc_info else line


class RateLimit(logging.Filter):
    """Pass at most BURST records of one message and stream per BURST_S; the next one says how many were dropped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[tuple[object, ...], tuple[float, int]] = {}  # begin and number of records

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.levelno, str(record.msg), getattr(record, "stream", None))
        now_s = self._clock()
        began_s, number = self._windows.get(key, (now_s, 0))
        dropped = max(0, number - BURST)
        if now_s - began_s >= BURST_S:
            began_s, number = now_s, 0
        self._windows[key] = (began_s, number + 1)
        if number >= BURST:
            return False
        if number == 0 and dropped:
            record.dropped = dropped  # not in the message, which other handlers show as well
        return True
