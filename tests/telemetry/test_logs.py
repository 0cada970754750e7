from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from stream_seg.telemetry.logs import BURST, BURST_S, JsonLines, RateLimit, TextLines, get_message
from tests.support.program import ENDLESS_DRIVE, start_program


def make_record(message: str, *args: object, stream: str | None = None, seq: int | None = None) -> logging.LogRecord:
    """Return a warning, with the attributes `stream` and `seq` where they are not None."""
    context = {name: value for name, value in (("stream", stream), ("seq", seq)) if value is not None}
    record = logging.LogRecord("stream_seg.runtime.worker", logging.WARNING, "worker.py", 1, message, args, None)
    record.__dict__.update(context)
    return record


def test_a_json_line_has_all_fields() -> None:
    entry = json.loads(JsonLines().format(make_record("lost %d\nframes", 3, stream="front", seq=17)))
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "stream_seg.runtime.worker",
        "message": "lost 3\nframes",
        "stream": "front",
        "seq": 17,
    }


def test_a_text_record_is_one_line() -> None:
    line = TextLines().format(make_record("lost %d\nframes", 3, stream="front", seq=17))
    assert line.endswith(" WARNING front:17 lost 3 frames")


def test_an_exception_is_logged_with_its_traceback() -> None:
    record = make_record("it broke")
    try:
        raise ValueError("deep down")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: deep down" in json.loads(JsonLines().format(record))["error"]
    assert TextLines().format(record).endswith("ValueError: deep down")


def test_no_line_shows_a_password() -> None:
    record = make_record("%s is away", "rtsp://me:hunter2@host/live")
    try:
        raise ValueError("rtsp://me:hunter2@host/live")
    except ValueError:
        record.exc_info = sys.exc_info()
    for formatter in (JsonLines(), TextLines()):
        line = formatter.format(record)
        assert "hunter2@" not in line.replace('raise ValueError("rtsp://me:hunter2@host/live")', "")
        assert "rtsp://…@host/live is away" in line.encode().decode("unicode_escape" if line[0] == "{" else "utf-8")


def test_repeated_messages_are_dropped_and_counted() -> None:
    now_s = [0.0]
    limit = RateLimit(clock=lambda: now_s[0])
    passed = [limit.filter(make_record("late %d", number, stream="front")) for number in range(100)]
    assert passed == [True] * BURST + [False] * (100 - BURST)
    assert limit.filter(make_record("late %d", 0, stream="rear"))
    assert limit.filter(make_record("other", stream="front"))
    now_s[0] = BURST_S
    after = make_record("late %d", 100, stream="front")
    assert limit.filter(after)
    assert get_message(after) == f"late 100 (and {100 - BURST} more like it)"
    assert after.getMessage() == "late 100"  # as other handlers show it
    again = make_record("late %d", 101, stream="front")
    assert limit.filter(again)
    assert again.getMessage() == "late 101"


@pytest.mark.parametrize("log_format", ["json", "text", "auto"])
def test_the_program_logs_in_the_requested_format(log_format: str, tmp_path: Path) -> None:
    run = ("run", f"{ENDLESS_DRIVE}&frames=2", "--quiet", tmp_path / "out.jsonl")
    with start_program("-v", "--log-format", log_format, *run) as program:
        _, errors = program.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if "road" in line]
    assert lines
    for line in lines:
        assert line.startswith("{") == (log_format != "text")
