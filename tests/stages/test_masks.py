"""Test the label maps that `masks` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.errors import ConfigError, OutputError
from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.stages.masks import Masks
from stream_seg.types import Classes

CLASSES = Classes(("road", "sky"), ((128, 64, 128), (70, 130, 180)))
ENGINE = EngineInfo("fake", "none", "u8", "cpu")
LABELS = np.array([[1, 1, 255], [0, 0, 0]], np.uint8)


def frames(*numbers: int, stream: str = "front") -> Iterator[Frame]:
    """Yield frames of 6x4 pixels with labels of 3x2."""
    semantic = Semantic(CLASSES, ENGINE, (2, 3), label_map=LABELS)
    for seq in numbers:
        yield Frame(stream, seq, seq, Fraction(1, 30), 0, np.zeros((4, 6, 3), np.uint8), semantic)


def test_one_map_per_frame_at_the_size_of_the_image(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    seen = [frame.seq for frame in Masks(folder)(frames(0, 42, 1_000_000))]
    assert seen == [0, 42, 1_000_000]
    assert {file.name for file in folder.iterdir()} == {"classes.json", "000000.png", "000042.png", "1000000.png"}
    mask = cv2.imread(str(folder / "000042.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, LABELS.repeat(2, axis=0).repeat(2, axis=1))
    assert json.loads((folder / "classes.json").read_text()) == [
        {"label": 0, "name": "road", "colour": [128, 64, 128]},
        {"label": 1, "name": "sky", "colour": [70, 130, 180]},
    ]


def test_a_map_is_written_before_its_frame_is_yielded(tmp_path: Path) -> None:
    stage = Masks(tmp_path)(frames(0, 1, 2))
    next(stage)
    next(stage)
    stage.close()  # type: ignore[attr-defined]
    assert {file.name for file in tmp_path.iterdir()} == {"classes.json", "000000.png", "000001.png"}


def test_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "000000.png").write_text("an older mask")
    list(Masks(tmp_path)(frames(0)))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert cv2.imread(str(tmp_path / "000000.png")) is not None


def test_label_maps_of_other_classes_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "classes.json").write_text("[]")
    list(Masks(tmp_path)(frames(0)))
    assert caplog.text == ""  # there are no label maps that it describes
    list(Masks(tmp_path)(frames(1)))
    assert caplog.text == ""
    (tmp_path / "classes.json").write_text("[]")
    list(Masks(tmp_path)(frames(2)))
    assert "contains label maps of other classes; classes.json lists those of this run" in caplog.text


def test_no_folder_without_frames(tmp_path: Path) -> None:
    assert list(Masks(tmp_path / "masks")(frames())) == []
    assert list(tmp_path.iterdir()) == []


def test_streams_need_a_folder_each(tmp_path: Path) -> None:
    both = [*frames(0), *frames(0, stream="rear")]
    with pytest.raises(ConfigError, match=r"front and rear cannot share .*masks; .*masks/\{stream\}"):
        list(Masks(tmp_path / "masks")(iter(both)))
    list(Masks(tmp_path / "masks2/{stream}")(iter(both)))
    assert {file.name for file in (tmp_path / "masks2").iterdir()} == {"front", "rear"}
    assert (tmp_path / "masks2/rear/000000.png").exists()


def test_frames_without_classes(tmp_path: Path) -> None:
    source = (replace(frame, semantic=None) for frame in frames(0))
    with pytest.raises(ConfigError, match="masks: the frames have no classes; put a segment stage before it"):
        list(Masks(tmp_path / "masks")(source))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no/masks", "no such folder: .*no; create it first"),
        ("no/masks/{stream}", "no such folder: .*no; create it first"),
        ("file", "file exists and is not a folder"),
    ],
)
def test_an_unwritable_folder_is_refused_before_the_first_frame(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    source = frames(0)
    with pytest.raises(OutputError, match=reason):
        next(Masks(tmp_path / path)(source))
    assert next(source).seq == 0
