"""How the log is written: a line each, readable on a terminal, JSON elsewhere; a torrent of one message is thinned, and
no address says its password.

A record says which stream and frame it is about with `extra={"stream": ..., "seq": ...}`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

from stream_seg.redact import discreet

Form: TypeAlias = Literal["auto", "text", "json"]
ABOUT = ("stream", "seq")
BURST, BURST_S = 5, 10.0
"""So many records of one message in so many seconds are written; the rest are counted, and told with the next."""


def configure(*, verbose: bool, form: Form = "auto") -> None:
    """Write the log to standard error: from INFO on with `verbose`, else warnings and errors."""
    handler = logging.StreamHandler()
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextLines() if text else JsonLines())
    handler.addFilter(Thinned())
    root = logging.getLogger()
    for before in [h for h in root.handlers if isinstance(h.formatter, JsonLines | TextLines)]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("stream_seg").setLevel(logging.DEBUG if verbose else logging.NOTSET)


class JsonLines(logging.Formatter):
    """time (UTC), level, logger, message, and where they are known stream, seq and error."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": discreet(record.getMessage()),
            **{name: getattr(record, name) for name in ABOUT if hasattr(record, name)},
        }
        if record.exc_info:
            said["error"] = discreet(self.formatException(record.exc_info))
        return json.dumps(said, default=str)


class TextLines(logging.Formatter):
    """`14:03:07 WARNING front:1234 message`; an exception follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        about = ":".join(str(getattr(record, name)) for name in ABOUT if hasattr(record, name))
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        parts = (clock, record.levelname, about, discreet(record.getMessage()))
        line = " ".join(part.replace("\n", " ") for part in parts if part)
        return f"{line}\n{discreet(self.formatException(record.exc_info))}" if record.exc_info else line


class Thinned(logging.Filter):
    """Lets BURST records of one message and stream through in BURST_S, and says with the next how many were not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, record.levelno, str(record.msg), getattr(record, "stream", None))
        now = self._clock()
        began, number = self._windows.get(key, (now, 0))
        held_back = max(0, number - BURST)
        if now - began >= BURST_S:
            began, number = now, 0
        self._windows[key] = (began, number + 1)
        if number >= BURST:
            return False
        if number == 0 and held_back:
            record.msg, record.args = f"{record.getMessage()} (and {held_back} more like it)", ()
        return True
