"""Progress of a long command on standard error: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0
SPEED_PERIOD_S = 300
"""Time over which a bar averages the speed for the time left."""
Update: TypeAlias = Callable[[int, str], None]
"""Called with the count done so far and the current figures as text."""


@contextmanager
def progress(
    console: Console, total: int | None, *, unit: str, quiet: bool = False, line_every_s: float = LINE_EVERY_S
) -> Iterator[Update]:
    """Show progress towards `total` of `unit`, with the time left; `total` None: unknown, as of a live source."""
    if quiet:
        yield lambda done, figures: None
        return
    if not console.is_terminal:
        yield _lines(console, total, unit, line_every_s)
        return
    time_left = (TimeRemainingColumn(), TextColumn("left")) if total else (TimeElapsedColumn(),)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TextColumn("{task.fields[figures]}"), *time_left)
    # Standard output goes above the bar, unless it is a file or a pipe.
    keys: dict[str, Any] = {"transient": True, "redirect_stdout": sys.stdout.isatty()}
    with Progress(*columns, console=console, speed_estimate_period=SPEED_PERIOD_S, **keys) as bar:
        task = bar.add_task(unit, total=total, figures="")
        yield lambda done, figures: bar.update(task, completed=done, figures=figures)


def _lines(console: Console, total: int | None, unit: str, every_s: float) -> Update:
    start_s = printed_s = time.monotonic()
    first: tuple[int, float] | None = None  # count and time of the first update: a resumed training is not at 0

    def update(done: int, figures: str) -> None:
        nonlocal printed_s, first
        now_s = time.monotonic()
        first = first or (done, now_s)
        if now_s - printed_s < every_s and (done != total or printed_s == start_s):  # a short run prints no line
            return
        printed_s = now_s
        line = f"{done} of {total} {unit}, {figures}" if total else f"{done} {unit}, {figures}"
        if total and done > first[0]:
            line += f", {timedelta(seconds=round((now_s - first[1]) / (done - first[0]) * (total - done)))} left"
        console.print(line, highlight=False, soft_wrap=True)

    return update
