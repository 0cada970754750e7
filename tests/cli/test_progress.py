"""Tests of progress output on a terminal and in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from stream_seg.cli import progress as module
from stream_seg.cli.progress import progress
from stream_seg.cli.train import format_figures

FIGURES = {"loss": 1.25, "learning_rate": 0.00064, "miou": None}


def written(console: Console) -> str:
    """Return what was written to the console, without terminal escape sequences."""
    return re.sub(r"\x1b\[[\d;?]*\w", "", console.file.getvalue())  # type: ignore[attr-defined]


def test_a_log_gets_lines_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    console, now = Console(file=io.StringIO()), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress(console, 1000, unit="steps", line_every_s=20) as update:
        for step in range(301, 1001):  # a training resumed at step 300, 0.1 s per step
            now[0] += 0.1
            if step in {301, 310, 500, 501, 1000}:
                update(step, format_figures({**FIGURES, "miou": 0.763 if step == 1000 else None}))
    assert written(console).splitlines() == [
        "500 of 1000 steps, loss 1.250, rate 0.00064, 0:00:50 left",
        "1000 of 1000 steps, loss 1.250, rate 0.00064, mIoU 76.3, 0:00:00 left",
    ]


def test_a_log_of_a_live_source_says_no_time_left() -> None:
    console = Console(file=io.StringIO())
    with progress(console, None, unit="frames", line_every_s=0) as update:
        update(60, "30.0 fps")
        update(120, "30.0 fps")
    assert written(console).splitlines() == ["60 frames, 30.0 fps", "120 frames, 30.0 fps"]


def test_a_short_run_gets_no_line() -> None:
    console = Console(file=io.StringIO())
    with progress(console, 10, unit="frames", line_every_s=60) as update:
        update(10, "30.0 fps")
    assert written(console) == ""


def test_a_terminal_gets_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress(console, 300, unit="frames") as update:
        update(60, "30.0 fps")
    shown = written(console)
    assert "60/300 frames 30.0 fps" in shown
    assert "left" in shown


def test_quiet_shows_nothing() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with progress(console, 300, unit="frames", quiet=True) as update:
        update(60, "30.0 fps")
    assert written(console) == ""
