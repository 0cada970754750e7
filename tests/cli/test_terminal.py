"""On a terminal, log lines and the progress bar never share a line."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import struct
import sys
import termios
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pyte
import pytest

from stream_seg.cli.console import error_console, print_error_line, terminal_console
from stream_seg.cli.progress import progress
from stream_seg.telemetry.logs import configure
from tests.support.program import wait_until

COLUMNS, ROWS = 80, 24
BAR = "━"
LONG = "a line that does not fit into the columns of the terminal " * 2


class Terminal:
    """A terminal. `bars` lists the lines with a bar at any moment, `mixed` those of them with other text beside it."""

    def __init__(self, reader: int) -> None:
        self.screen = pyte.HistoryScreen(COLUMNS, ROWS, history=1000)
        self.mixed: list[str] = []
        self.bars: list[str] = []
        self._reader, self._stream = reader, pyte.ByteStream(self.screen)
        self.thread = Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        with suppress(OSError):  # the writing end is closed
            while content := os.read(self._reader, 4096):
                self._stream.feed(content)
                bars = [line for line in self.screen.display if BAR in line]
                self.bars += bars
                self.mixed += [line for line in bars if "line" in line]

    def text(self) -> str:
        """Return everything that it shows, and that has scrolled away, as one line."""
        history = ("".join(row[x].data for x in range(COLUMNS)) for row in self.screen.history.top)
        return "".join([*history, *self.screen.display])


@contextmanager
def open_terminal(monkeypatch: pytest.MonkeyPatch, *, log_format: str = "auto") -> Iterator[Terminal]:
    """Let standard output and standard error be a terminal, and configure the log, for the body."""
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    root, level = logging.getLogger(), logging.getLogger().level
    with monkeypatch.context() as patch, os.fdopen(writer, "w", buffering=1) as file, warnings.catch_warnings():
        warnings.simplefilter("always")
        for name, value in (("TERM", "xterm-256color"), ("COLUMNS", str(COLUMNS)), ("LINES", str(ROWS))):
            patch.setenv(name, value)
        patch.setattr(sys, "stderr", file)
        patch.setattr(sys, "stdout", file)
        patch.setattr(logging, "_warnings_showwarning", None)  # captureWarnings may have been called before
        patch.setattr(root, "handlers", [])
        terminal = Terminal(reader)
        error_console.cache_clear()
        configure(verbose=False, log_format=log_format, console=terminal_console())  # type: ignore[arg-type]
        try:
            yield terminal
        finally:
            error_console.cache_clear()
            root.setLevel(level)
            file.close()
            terminal.thread.join()
            os.close(reader)


def test_lines_come_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_terminal(monkeypatch) as terminal, progress(error_console(), 40, unit="frames") as update:
        for number in range(40):
            update(number, "30.0 fps")
            logging.getLogger(f"test{number}").warning("line %d of the log: %s", number, LONG)
            if number % 4 == 0:
                print_error_line(f"line {number} for the user")
                print(f"line {number} of a stage")
                print(f"line {number} of a library", file=sys.stderr)
                warnings.warn(f"line {number} of Python", stacklevel=1)
    assert terminal.mixed == []
    text = terminal.text()
    for number in range(0, 40, 4):
        for origin in ("of the log", "for the user", "of a stage", "of a library", "of Python"):
            assert f"line {number} {origin}" in text
    assert BAR not in text  # it is gone


def test_the_bar_shows_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_terminal(monkeypatch) as terminal, progress(error_console(), 40, unit="frames") as update:
        update(20, "30.0 fps")
        wait_until(lambda: any("20/40 frames 30.0 fps" in line for line in terminal.bars))


def test_json_lines_are_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_terminal(monkeypatch, log_format="json") as terminal:
        logging.getLogger("test").warning(LONG)
    assert json.loads(terminal.text())["message"] == LONG
