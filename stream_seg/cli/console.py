"""The consoles of the command line: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STDOUT = Path("-")
"""The name of standard output in place of a file."""
UNBOUNDED = 100_000
"""Columns of an output that is no terminal: a table in a pipe or a file is not cut."""


@cache
def error_console() -> Console:
    """Return the console on standard error. There is one, so that log lines come above its progress bar."""
    from rich.console import Console  # not for --version

    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def terminal_console() -> Console | None:
    """Return the console on standard error if that is a terminal."""
    return error_console() if sys.stderr.isatty() else None


def print_error_line(text: str) -> None:
    """Print a line on standard error; it is broken by the terminal alone."""
    error_console().print(text, soft_wrap=True)


def print_results(*parts: Table | str, json_file: Path | None = None) -> None:
    """Print tables and lines on standard output, with an empty line around a table; not if JSON goes there."""
    from rich.console import Console

    if json_file == STDOUT:
        return
    on_terminal = sys.stdout.isatty()
    console = Console(markup=False, highlight=False, emoji=False, width=None if on_terminal else UNBOUNDED)
    for number, part in enumerate(parts):
        if isinstance(part, str):
            console.print(part, soft_wrap=True)
            continue
        if number:
            console.print()
        fits = console.measure(part, options=console.options.update(width=UNBOUNDED)).minimum <= console.width
        for column in part.columns:  # nothing is cut on a narrow terminal either
            column.overflow, column.no_wrap = "fold", column.no_wrap and fits
        if on_terminal:
            console.print(part)
            continue
        with console.capture() as rendered:
            console.print(part)
        for line in rendered.get().splitlines():
            console.print(line.rstrip(), soft_wrap=True)  # the last column is padded to its longest cell
