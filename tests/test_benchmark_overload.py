"""benchmarks/overload.py: the figures of live sources, and the limits that make it fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import av
import pytest

from tests.support.clips import number_image, write_video

FOLDER = Path(__file__).parents[1] / "benchmarks"
ROW = {"fps": 50.0, "cpu_ms": 30.0, "least": 25.0, "most": 25.0, "pause_s": 0.1, "age_p50_ms": 40.0, "age_p95_ms": 60.0}
CLOSE = dict.fromkeys(("half", "double", "two", "four", "eight"), ROW)


@pytest.fixture
def overload(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module benchmarks/overload.py."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    yield import_module("overload")
    for name in {path.stem for path in FOLDER.glob("*.py")} - before:
        sys.modules.pop(name, None)


def test_figures_are_of_the_images_that_arrived_in_time(overload: ModuleType) -> None:
    rows = sys.modules["live_rows"]
    arrivals = [rows.Arrival("a", 10 + second, 20.0) for second in (0.5, 1.0, 3.0)]
    arrivals += [rows.Arrival("b", 10 + second, 40.0) for second in (0.5, 1.0, 2.0, 2.5, 3.0, 3.5, 3.75)]
    figures = rows.summarize(arrivals, ("a", "b"), 10.0, 14.0, cpu_s=0.5)
    assert figures == {
        "fps": 2.5,
        "cpu_ms": 50.0,
        "least": 0.75,
        "most": 1.75,
        "pause_s": 2.0,
        "age_p50_ms": 40.0,
        "age_p95_ms": 40.0,
    }
    assert rows.summarize(arrivals, ("a", "b", "c"), 10.0, 14.0, cpu_s=0.5)["pause_s"] == 4.0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("four", {"fps": 49.0}, "four: 0.98 x the frames/s of two, at least 1 x is expected"),
        ("eight", {"fps": 32.0}, "eight: 0.64 x the frames/s of two, at least 0.65 x is expected"),
        ("four", {"age_p50_ms": 190.0}, "four: the median age is 190 ms, at most 180 is expected"),
        ("eight", {"pause_s": 1.01}, "eight: a source had no frame for 1.01 s"),
        ("two", {"most": 40.0}, "two: a source got 1.6 x the frames of another"),
        ("double", {"age_p50_ms": 64.0}, "double: the median age is 1.60 x that of half, at most 1.5 x is expected"),
    ],
)
def test_every_limit_has_its_line(overload: ModuleType, name: str, changes: dict[str, float], message: str) -> None:
    assert overload.find_exceeded(CLOSE) == []
    assert overload.find_exceeded({**CLOSE, name: {**ROW, **changes}}) == [message]


def test_a_clip_is_played_at_another_rate_without_encoding(overload: ModuleType, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", (number_image(number, (64, 48)) for number in range(20)), rate=25)
    path = overload.retime(clip, tmp_path / "b.mp4", 83.3)
    times = []
    with av.open(str(path)) as container:
        frames = [*container.decode(video=0)]
        times = [float(frame.pts * frame.time_base) for frame in frames]
    assert len(frames) == 20
    assert (times[-1] - times[0]) / 19 == pytest.approx(1 / 83.3, rel=0.01)


def test_live_sources_are_measured(overload: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sys.modules["live_rows"]
    monkeypatch.setattr(rows, "WARM_UP_S", 0.0)
    clip = write_video(tmp_path / "a.mp4", (number_image(number, (64, 48)) for number in range(20)), rate=25)
    figures = rows.run_graph(clip, count=2, seconds=2.0)
    assert set(figures) == set(overload.COLUMNS)
    assert figures["most"] > 0
    assert rows.run_recording(clip)["fps"] > 0
    assert set(rows.run_loop(clip, count=2, seconds=2.0)) == set(overload.COLUMNS)
