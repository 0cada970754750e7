from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from stream_seg.telemetry.logs import BURST, BURST_S, JsonLines, TextLines, Thinned
from tests.support.program import DRAWN, running


def record(message: str, *args: object, stream: str | None = None, seq: int | None = None) -> logging.LogRecord:
    about = {name: value for name, value in (("stream", stream), ("seq", seq)) if value is not None}
    made = logging.LogRecord("stream_seg.runtime.worker", logging.WARNING, "task.py", 1, message, args, None)
    made.__dict__.update(about)
    return made


def test_json_lines_hold_what_is_known() -> None:
    said = json.loads(JsonLines().format(record("lost %d\nframes", 3, stream="front", seq=17)))
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "warning",
        "logger": "stream_seg.runtime.worker",
        "message": "lost 3\nframes",
        "stream": "front",
        "seq": 17,
    }


def test_a_text_record_is_one_line() -> None:
    line = TextLines().format(record("lost %d\nframes", 3, stream="front", seq=17))
    assert line.endswith(" WARNING front:17 lost 3 frames")


def test_an_exception_is_kept() -> None:
    made = record("it broke")
    try:
        raise ValueError("deep down")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: deep down" in json.loads(JsonLines().format(made))["error"]
    assert TextLines().format(made).endswith("ValueError: deep down")


def test_no_line_says_a_password() -> None:
    made = record("%s is away", "rtsp://me:hunter2@host/live")
    try:
        raise ValueError("rtsp://me:hunter2@host/live")
    except ValueError:
        made.exc_info = sys.exc_info()
    for form in (JsonLines(), TextLines()):
        said = form.format(made)
        assert "hunter2@" not in said.replace('raise ValueError("rtsp://me:hunter2@host/live")', "")
        assert "rtsp://…@host/live is away" in said.encode().decode("unicode_escape" if said[0] == "{" else "utf-8")


def test_a_torrent_is_thinned_and_counted() -> None:
    now = [0.0]
    thinned = Thinned(clock=lambda: now[0])
    passed = [thinned.filter(record("late %d", number, stream="front")) for number in range(100)]
    assert passed == [True] * BURST + [False] * (100 - BURST)
    assert thinned.filter(record("late %d", 0, stream="rear"))
    assert thinned.filter(record("other", stream="front"))
    now[0] = BURST_S
    after = record("late %d", 100, stream="front")
    assert thinned.filter(after)
    assert after.getMessage() == f"late 100 (and {100 - BURST} more like it)"
    again = record("late %d", 101, stream="front")
    assert thinned.filter(again)
    assert again.getMessage() == "late 101"


@pytest.mark.parametrize("form", ["json", "text", "auto"])
def test_the_program_logs_in_the_form_asked_for(form: str, tmp_path: Path) -> None:
    run = ("run", f"{DRAWN}&frames=2", "--quiet", tmp_path / "out.jsonl")
    with running("-v", "--log-format", form, *run) as program:
        _, said = program.communicate(timeout=60)
    lines = [line for line in said.splitlines() if "road" in line]
    assert lines
    for line in lines:
        assert line.startswith("{") == (form != "text")
