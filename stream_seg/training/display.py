"""How far a training is: a bar on a terminal, a line now and then elsewhere. Both on standard error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stream_seg.training.loop import Say

LINE_EVERY_S = 20.0


@contextmanager
def display(console: Console, steps: int, *, line_every_s: float = LINE_EVERY_S) -> Iterator[Say]:
    """Show the way to `steps`, with the time left and the latest figures."""
    if not console.is_terminal:
        yield _lines(console, steps, line_every_s)
        return
    columns = (
        BarColumn(None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, expand=True, speed_estimate_period=300) as shown:
        task = shown.add_task("steps", total=steps, figures="")
        yield lambda done, found: shown.update(task, completed=done, figures=as_text(found))


def _lines(console: Console, steps: int, every_s: float) -> Say:
    began = said = time.monotonic()
    first: int | None = None

    def say(done: int, found: dict[str, Any]) -> None:
        nonlocal said, first
        first = done - 1 if first is None else first
        now = time.monotonic()
        if now - said < every_s and done != steps:
            return
        said = now
        left = timedelta(seconds=round((now - began) / (done - first) * (steps - done)))
        console.print(f"step {done} of {steps}, {as_text(found)}, {left} left", highlight=False, soft_wrap=True)

    return say


def as_text(found: dict[str, Any]) -> str:
    """The figures as a line has room for them."""
    miou = "" if found["miou"] is None else f", mIoU {100 * found['miou']:.1f}"
    return f"loss {float(found['loss']):.3f}, rate {found['learning_rate']:.2g}{miou}"
