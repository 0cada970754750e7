"""Live sources are read below the priority of the stages; a system that refuses is named in the report."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Event

import pytest

from stream_seg.runtime.report import Report
from stream_seg.sources import priority
from stream_seg.sources.priority import LOWEST, READER_NICENESS, lower_priority
from stream_seg.sources.reader import Reader
from stream_seg.sources.video import DecodedFrames
from stream_seg.stages.base import Traits
from stream_seg.stages.capture import Capture
from tests.support.clips import number_image, write_video
from tests.support.fake_stages import FunctionStage, make_node, run_graph


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")
def test_a_reader_runs_below_the_priority_of_the_other_threads() -> None:
    over, notes = Event(), list[str]()

    def make() -> DecodedFrames:
        niceness.append(os.getpriority(os.PRIO_PROCESS, 0))
        read.set()
        over.wait(20)
        return
        yield

    niceness, read = list[int](), Event()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    reader = Reader(make, name="front", note=notes.append)
    try:
        assert read.wait(20)
        assert niceness == [min(LOWEST, own + READER_NICENESS)]
        assert os.getpriority(os.PRIO_PROCESS, 0) == own
        assert notes == []
    finally:
        over.set()
        reader.abandon()


def play(folder: Path) -> list[str]:
    """Return the notes in the report of a run that reads a clip as if it were live."""
    clip = write_video(folder / "a.mp4", (number_image(number, (64, 48)) for number in range(5)), rate=50)
    camera = make_node("camera", "source", Capture(str(clip), stream="front", loop=True, frames=8))
    sink = make_node("sink", "output", FunctionStage(lambda frames: frames, Traits(role="output")), "camera")
    graph = run_graph([camera, sink], policy="latest")
    return Report.of(graph, seconds=1.0).notes


def refuse(*_: int) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_system_that_refuses_is_named_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert play(tmp_path) == []
    monkeypatch.setattr(os, "setpriority", refuse)
    line = f"front: read at the usual priority (niceness {READER_NICENESS}: Operation not permitted)"
    assert play(tmp_path) == ([line] if sys.platform == "linux" else [])


def test_where_a_niceness_would_be_that_of_the_process_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(priority.sys, "platform", "darwin")
    assert lower_priority() == "darwin has no niceness of threads"
