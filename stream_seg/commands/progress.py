"""How far a run is: a bar on a terminal, a line now and then elsewhere. Both on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0
Update = Callable[[int, float], None]
"""Called with the frames written so far and the frames per second of the moment."""


@contextmanager
def progress(
    console: Console, total: int | None, *, quiet: bool, line_every_s: float = LINE_EVERY_S
) -> Iterator[Update]:
    """Show progress towards `total` frames (None: not known)."""
    if quiet:
        yield _nothing
    elif console.is_terminal:
        with _bar(console, total) as update:
            yield update
    else:
        yield _lines(console, total, line_every_s)


@contextmanager
def _bar(console: Console, total: int | None) -> Iterator[Update]:
    left = (TimeRemainingColumn(), TextColumn("left")) if total else (TimeElapsedColumn(),)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TextColumn("{task.fields[fps]:5.1f} fps"),
        *left,
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("frames", total=total, fps=0.0)
        yield lambda done, fps: shown.update(task, completed=done, fps=fps)


def _lines(console: Console, total: int | None, every_s: float) -> Update:
    last = time.monotonic()

    def update(done: int, fps: float) -> None:
        nonlocal last
        if time.monotonic() - last < every_s:
            return
        last = time.monotonic()
        of = f" of {total}" if total else ""
        left = f", {(total - done) / fps:.0f} s left" if total and fps else ""
        console.print(f"{done}{of} frames, {fps:.1f} fps{left}", highlight=False)

    return update


def _nothing(_done: int, _fps: float) -> None:
    """Show nothing."""
