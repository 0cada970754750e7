"""Test `eval --temporal`: metrics of stages on videos with ground truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import ConfigError, SourceError
from stream_seg.evaluation.videos import (
    POLICIES,
    SCENES,
    Drive,
    evaluate_videos,
    measure_stages,
    read_drive,
    render_drive,
    tabulate_videos,
)
from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.stages.base import Frames, Stage
from stream_seg.types import VOID, Classes
from tests.support import small_networks
from tests.support.noisy_scores import add_noisy_scores
from tests.support.program import read_json, run_cli

METRICS = {
    "miou",
    "vc8",
    "vc16",
    "tc",
    "flicker",
    "flicker_followed",
    "boundary_f",
    "cpu_ms",
    "cpu_p50_ms",
    "cpu_p95_ms",
}
ENGINE = EngineInfo("truth", "none", "exact", "none")


@dataclass
class Oracle:
    """Yield the true labels, but only sky in every `wrong_every`-th frame."""

    wrong_every: int = 1000

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            assert frame.truth is not None
            labels = frame.truth.labels if (frame.seq + 1) % self.wrong_every else np.zeros_like(frame.truth.labels)
            yield replace(frame, semantic=Semantic(CAMVID, ENGINE, labels.shape, label_map=labels))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pan() -> Drive:
    return render_drive("pan", frames=17)


def test_the_truth_is_correct_and_stable(pan: Drive) -> None:
    results = measure_stages(pan, [Oracle()])
    assert results.keys() == METRICS
    assert results["miou"] == results["boundary_f"] == results["vc8"] == results["vc16"] == pytest.approx(1)
    assert results["flicker_followed"] == 0
    assert results["tc"] > 0.9


def test_wrong_frames_flicker(pan: Drive) -> None:
    results = measure_stages(pan, [Oracle(wrong_every=5)])
    assert results["miou"] < 0.85
    assert results["vc8"] < 0.5
    assert results["tc"] < 0.7
    assert results["flicker_followed"] > 0.2


def test_stages_run_in_sequence(pan: Drive) -> None:
    def add_scores(frames: Frames) -> Frames:
        return (
            replace(frame, semantic=replace(frame.semantic, label_map=None, scores=score(frame))) for frame in frames
        )  # type: ignore[type-var]

    def score(frame: Frame) -> np.ndarray:
        return add_noisy_scores(frame, 2.0).semantic.scores  # type: ignore[union-attr, return-value]

    from stream_seg.stages.smooth import Smooth

    stages: Sequence[Stage] = (Oracle(), add_scores)
    raw, smoothed = measure_stages(pan, stages), measure_stages(pan, (*stages, Smooth()))
    assert smoothed["miou"] > raw["miou"]
    assert smoothed["flicker_followed"] < 0.7 * raw["flicker_followed"]
    assert smoothed["tc"] > raw["tc"] + 0.02


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_has_exact_motion(scene: str) -> None:
    drive = render_drive(scene, frames=4)
    assert len(drive.frames) == (3 if scene == "dropped" else 4)
    assert drive.motion[0] is None
    assert all(motion is not None for motion in drive.motion[1:])


def test_synthetic_labels_are_mapped_by_name(pan: Drive) -> None:
    two = render_drive("pan", frames=2, classes=Classes(("background", "road"), ((0, 0, 0),) * 2))
    for own, camvid in zip(two.frames, pan.frames, strict=False):
        assert own.truth is not None
        assert camvid.truth is not None
        road = camvid.truth.labels == CAMVID.index("road")
        assert road.any()
        np.testing.assert_array_equal(own.truth.labels, np.where(road, 1, VOID))
        assert own.truth.classes.names == ("background", "road")


def test_a_network_without_synthetic_classes_is_rejected(tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": ["cat", "dog", "cow"]}
    )
    with pytest.raises(ConfigError, match=r"^synth://road draws sky, .*; none .* the classes of the network$"):
        evaluate_videos(path, None)


def test_a_network_without_synthetic_classes_is_measured_on_data(tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": ["cat", "dog", "cow"]}
    )
    results = evaluate_videos(path, write_split(tmp_path, [(60, 80)] * 3))
    assert results["scenes"] == {}
    assert 0 <= results["per_frame"]["miou"] <= 1
    assert tabulate_videos(results).row_count == len(POLICIES)


def test_metrics_are_none_without_outlines(pan: Drive) -> None:
    """JSON has None, but not the NaN of an empty mean."""
    void = np.full_like(pan.frames[0].truth.labels, VOID)  # type: ignore[union-attr]
    frames = [replace(frame, truth=replace(frame.truth, labels=void)) for frame in pan.frames[:3]]  # type: ignore[type-var]
    results = measure_stages(Drive(frames, pan.motion[:3]), [Oracle()])
    assert (results["miou"], results["boundary_f"]) == (None, None)
    json.dumps(results, allow_nan=False)


def write_split(folder: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    for name in ("val", "valannot"):
        (folder / name).mkdir()
    for k, (height, width) in enumerate(sizes):
        image = np.random.default_rng(k // 2).integers(0, 255, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "val" / f"{k}.png"), image)
        cv2.imwrite(str(folder / "valannot" / f"{k}.png"), np.full((height, width), k % 11, np.uint8))
    return folder


def test_a_folder_is_read_as_a_video(tmp_path: Path) -> None:
    drive = read_drive(write_split(tmp_path, [(64, 96)] * 3), "val", classes=CAMVID)
    assert [frame.seq for frame in drive.frames] == [0, 1, 2]
    assert drive.motion[0] is None
    assert drive.visible[1] is not None
    assert drive.visible[1].mean() > 0.9  # the same image twice
    assert drive.visible[2] is not None
    assert drive.visible[2].mean() < 0.1


def test_invalid_videos_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(SourceError, match="expected at least two"):
        read_drive(write_split(tmp_path / "one", [(64, 96)]), "val", classes=CAMVID)
    (tmp_path / "two").mkdir()
    with pytest.raises(SourceError, match="of another size"):
        read_drive(write_split(tmp_path / "two", [(64, 96), (64, 90)]), "val", classes=CAMVID)


def test_a_drive_with_more_classes_than_the_network_is_rejected(tmp_path: Path) -> None:
    three = Classes(CAMVID.names[:3], CAMVID.colours[:3])
    read_drive(write_split(tmp_path, [(64, 96)] * 4), "val", classes=three)
    cv2.imwrite(str(tmp_path / "valannot/3.png"), np.full((64, 96), 4, np.uint8))
    with pytest.raises(SourceError, match=r"valannot/3\.png: label 4 is out of range; .* the network has 3 classes$"):
        read_drive(tmp_path, "val", classes=three)


def test_the_command_writes_the_metrics_of_every_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("eval", "--temporal", "--frames", 4, "--json", tmp_path / "figures.json") == 0
    results = read_json(tmp_path / "figures.json")
    assert results["network"] == "road"
    assert results["scenes"].keys() == SCENES.keys()
    output = capsys.readouterr().out
    for policy in POLICIES:
        assert results[policy].keys() == METRICS
        assert results[policy] == results["scenes"]["drive"][policy]
        assert policy in output
    table = tabulate_videos(results)
    assert table.row_count == len(POLICIES) * (1 + len(SCENES))
    page = Path(str(table.caption).rsplit(maxsplit=1)[-1]).read_text(encoding="utf-8").lower()
    assert not [str(column.header) for column in table.columns if str(column.header).lower() not in page]


def test_smoothing_on_a_real_drive(data: Path) -> None:
    """`smooth` keeps the mIoU, reduces flicker by a third and adds two points of consistency on CamVid val."""
    drive = read_drive(data / "camvid", "val", classes=CAMVID)
    raw, smoothed = (measure_stages(drive, POLICIES[name](network="road")) for name in ("per_frame", "smoothed"))
    assert smoothed["miou"] >= raw["miou"]
    assert smoothed["flicker"] <= 0.7 * raw["flicker"]
    assert smoothed["flicker_followed"] <= 0.7 * raw["flicker_followed"]
    assert smoothed["tc"] >= raw["tc"] + 0.02
