"""benchmarks/compare.py: the expert's loop, ratios, floors and the bare limit. No verdict depends on the time taken."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_seg.config.graph_file import check
from stream_seg.errors import StreamSegError
from stream_seg.stages.segment import Segment
from stream_seg.stages.synthetic import Synthetic
from tests.support.clips import read_video, write_video

FOLDER = Path(__file__).parents[1] / "benchmarks"
ROW = "1920x1080, not encoded"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of the folder benchmarks/ can be imported."""
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(FOLDER)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of the synthetic drive, 320x180."""
    frames = islice(Synthetic(width=320, height=180)(iter(())), 6)
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", (frame.image for frame in frames))


def make_expert(name: str) -> Any:
    """Return the loop Expert or ExpertPlus."""
    return getattr(import_module("expert" if name == "Expert" else "expert_plus"), name)()


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize("name", ["Expert", "ExpertPlus"])
def test_the_expert_labels_images_in_order_as_the_pipeline_does(name: str) -> None:
    frames = list(islice(Synthetic(width=640, height=384)(iter(())), 5))
    images = [frame.image for frame in frames]
    results = list(make_expert(name).segment(images))
    for frame, image, (segmented, labels) in zip(Segment()(iter(frames)), images, results, strict=True):
        assert frame.semantic is not None
        assert segmented is image
        assert np.array_equal(labels, frame.semantic.scores.argmax(axis=0))


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize("name", ["Expert", "ExpertPlus"])
def test_the_expert_draws_every_frame_into_a_video(clip: Path, tmp_path: Path, name: str) -> None:
    loop, run, marks = make_expert(name), import_module("expert").run, list[int]()
    run(clip, tmp_path / "out.mp4", loop, frames=5, mark=lambda: marks.append(1))
    run(clip, None, loop, frames=3, mark=lambda: marks.append(1))
    images = [image for _, image in read_video(tmp_path / "out.mp4")]
    assert (len(images), len(marks)) == (5, 8)
    originals = [image for _, image in read_video(clip)[:5]]
    for image, original, (_, labels) in zip(images, originals, loop.segment(originals), strict=True):
        overlay = loop.draw(original.copy(), labels).astype(int)
        assert np.abs(image - overlay).mean() < 5 < np.abs(image - original.astype(int)).mean()


@pytest.mark.usefixtures("benchmarks")
def test_a_failing_thread_of_a_contender_ends_it(tmp_path: Path) -> None:
    with pytest.raises(StreamSegError, match=r"No such file or directory: '.*none\.mp4'"):
        import_module("race").run_contender("expert", tmp_path / "none.mp4", frames=3, encoded=False)


@pytest.mark.usefixtures("benchmarks")
def test_ours_does_the_work_of_the_expert(tmp_path: Path) -> None:
    make_graph = import_module("race").make_graph
    same, default = (
        check(make_graph(name, Path("in.mp4"), 9, tmp_path / "f.json", tmp_path / "o.mp4"), where="graph")
        for name in ("ours", "ours_default")
    )
    assert [node.name for node in same.nodes] == ["capture", "segment", "overlay", "output"]
    assert [node.name for node in default.nodes] == ["capture", "segment", "smooth", "overlay", "output"]
    overlay: Any = same.nodes[2].stage
    assert (overlay.legend, overlay.hud, overlay.opacity) == (False, False, 0.5)


def summarize(**rates: list[float]) -> Any:
    """Return the facts of ROW for rates by contender; CPU-ms are 1000 / rate."""
    race, figures = import_module("race"), import_module("compare_figures")
    runs = {name: [race.Run(9, fps, 1000 / fps, 300 + fps, 1.5) for fps in values] for name, values in rates.items()}
    limits = [{"decode": 4.0, "network": 16.0, "encode": 20.0}]
    return figures.summarize_row(race.Row("1920x1080", False), runs, limits)


@pytest.mark.usefixtures("benchmarks")
def test_a_ratio_is_the_median_of_rounds_to_the_faster_expert() -> None:
    ours = {"ours": [60.0, 90.0, 50.0], "ours_default": [40.0] * 3}
    row = summarize(**ours, expert=[40.0, 50.0, 60.0], expert_area=[50.0, 60.0, 55.0], decent=[5.0] * 3)
    assert row["expert"] == "expert_area"
    assert row["ratios"]["ours"] == {"fps": 1.2, "cpu_ms": 0.833}
    assert row["contenders"]["ours"]["fps"] == {"median": 60.0, "least": 50.0, "most": 90.0}


@pytest.mark.usefixtures("benchmarks")
def test_the_bare_limit_adds_what_a_row_contains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("compare_figures"), "count_cores", lambda: 2)
    row = summarize(ours=[75.0], ours_default=[50.0], expert=[70.0], expert_area=[60.0])
    assert row["limit"] == {"cpu_ms": {"decode": 4.0, "network": 16.0}, "fps": 100.0}
    assert row["share_of_limit"] == {"ours": 0.75, "ours_default": 0.5}


@pytest.mark.usefixtures("benchmarks")
def test_a_missed_floor_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = import_module("compare_figures")
    monkeypatch.setattr(figures, "count_cores", lambda: 2)
    row = summarize(ours=[63.0], ours_default=[62.0], expert=[70.0], expert_area=[60.0])
    floors = {(floor["contender"], floor["figure"]): floor["met"] for floor in figures.check_floors({ROW: row})}
    assert floors == {
        ("ours", "fps"): False,  # 0.9 x of 1.0
        ("ours_default", "fps"): False,  # 0.886 of 0.90
        ("ours", "cpu_ms"): False,  # 1.11 x of 1.06
        ("ours", "share_of_limit"): False,  # 63 % of 64 %
    }
    row = summarize(ours=[70.0], ours_default=[64.0], expert=[70.0], expert_area=[60.0])
    assert all(floor["met"] for floor in figures.check_floors({ROW: row}))


@pytest.mark.usefixtures("benchmarks")
def test_contenders_with_other_frames_are_not_compared() -> None:
    race, figures = import_module("race"), import_module("compare_figures")
    runs = {name: [race.Run(frames, 50.0, 20.0, 300.0, 1.0)] for name, frames in (("ours", 9), ("expert", 8))}
    with pytest.raises(StreamSegError, match=r"640x360, not encoded: runs of \[8, 9\] frames"):
        figures.summarize_row(race.Row("640x360", False), runs, [])


def test_compare_runs(clip: Path, tmp_path: Path) -> None:
    options = ["--input", clip, "--frames", "4", "--rounds", "1", "--busy-ok", "--json", tmp_path / "c.json"]
    done = subprocess.run(
        [sys.executable, FOLDER / "compare.py", *options], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert "round 1/1, 320x180 to mp4, frames/s: ours " in done.stderr
    facts = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert [*facts["rows"]] == ["320x180 to mp4", "320x180, not encoded"]
    for row in facts["rows"].values():
        assert [*row["contenders"]] == ["ours", "ours_default", "expert", "expert_plus"]
        assert row["frames"] == 4
    assert facts["agreement"]["320x180"] >= 0.97


def test_figures_of_a_busy_machine_are_not_judged(clip: Path) -> None:
    options = ["--input", clip, "--busy-ok", "--check"]
    done = subprocess.run([sys.executable, FOLDER / "compare.py", *options], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n"), "worth nothing" in done.stderr) == (1, 1, True)
