"""How far a training is, as a terminal and as a log sees it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from stream_seg.training import display as module
from stream_seg.training.display import display

FOUND = {"loss": 1.25, "learning_rate": 0.00064, "miou": None}


def written(console: Console) -> str:
    """What was put on it, without the colours and movements of a terminal."""
    return re.sub(r"\x1b\[[\d;?]*\w", "", console.file.getvalue())  # type: ignore[attr-defined]


def test_a_log_gets_lines_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    console, now = Console(file=io.StringIO()), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with display(console, 1000, line_every_s=20) as say:
        for step in range(301, 1001):  # a run that went on from step 300, at a tenth of a second a step
            now[0] += 0.1
            if step in {310, 500, 501, 1000}:
                say(step, {**FOUND, "miou": 0.763 if step == 1000 else None})
            elif step == 301:
                say(step, FOUND)
    assert written(console).splitlines() == [
        "step 500 of 1000, loss 1.250, rate 0.00064, 0:00:50 left",
        "step 1000 of 1000, loss 1.250, rate 0.00064, mIoU 76.3, 0:00:00 left",
    ]


def test_a_terminal_gets_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with display(console, 300) as say:
        say(60, FOUND)
    shown = written(console)
    assert "60/300 loss 1.250, rate 0.00064" in shown
    assert "left" in shown
