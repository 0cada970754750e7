"""Test the label maps that `masks` writes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.errors import ConfigError, OutputError
from stream_seg.frame import EngineInfo, Frame, Semantic, Signal
from stream_seg.stages.base import Context
from stream_seg.stages.label_folder import LabelFolder
from stream_seg.stages.masks import Masks
from stream_seg.types import Classes
from tests.support.program import wait_until

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


def masks(path: Path, *, overwrite: bool = False, recorded: bool = True, **settings: Any) -> Masks:
    """Return the stage as a graph binds it."""
    return Masks(path).bind(Context(recorded=recorded, overwrite=overwrite, **settings))


def test_label_maps_of_an_older_run_do_not_stay_among_the_new_ones(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    list(masks(folder)(frames(*range(5), 1_000_000)))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(OutputError, match=r"the folder holds label maps; choose another one, or .*--overwrite"):
        next(masks(folder)(frames(0)))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    others = ("notes.txt", "7.png", "0000001.png", "000001.jpg", "000001.png.bak", "000004 (1).png", "._000001.png")
    for name in others:
        (folder / name).write_text("mine")
    (folder / "000077.png").mkdir()
    (folder / ".000003.partial.png").write_text("half")  # of a killed run
    run = masks(folder, overwrite=True)(frames(3, 4))
    assert len(list(folder.iterdir())) == len(before) + len(others) + 2, "nothing is removed before the first frame"
    list(run)
    assert {file.name for file in folder.iterdir()} == {
        "classes.json", "000003.png", "000004.png", "000077.png", *others
    }  # fmt: skip
    assert all((folder / name).read_text() == "mine" for name in others)


def test_numbered_images_are_never_taken_for_label_maps(tmp_path: Path) -> None:
    (tmp_path / "000000.png").write_text("a photo")
    for classes in (None, "[1]", "{}", "not JSON"):
        if classes is not None:
            (tmp_path / "classes.json").write_text(classes)
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="holds label maps" if not overwrite else "may be an image"):
                next(masks(tmp_path, overwrite=overwrite)(frames(0)))
    assert (tmp_path / "000000.png").read_text() == "a photo"


@pytest.mark.parametrize("template", ["masks", "{stream}"])
def test_a_second_run_into_a_folder_is_refused_at_its_start(tmp_path: Path, template: str) -> None:
    streams = {"streams": lambda: ["front"]}
    first = masks(tmp_path / template, **streams)(frames(0, 1))
    next(first)
    (tmp_path / "link").symlink_to(next(entry for entry in tmp_path.iterdir() if entry.is_dir()))
    for path in (tmp_path / template, tmp_path / "link"):
        source = frames(0)
        with pytest.raises(OutputError, match="another run or output writes to this folder"):
            next(masks(path, overwrite=True, **streams)(source))
        assert next(source).seq == 0
    assert [frame.seq for frame in first] == [1]


def test_a_refused_run_does_not_remove_the_empty_folder_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LabelFolder(tmp_path / "masks", overwrite=False)
    second = LabelFolder(tmp_path / "masks", overwrite=False)
    with first:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "exists", lambda _: False)  # it looked before the first one created the folder
            with pytest.raises(OutputError, match="another run"), second:
                pass
        first.write(0, LABELS, CLASSES)
    assert (tmp_path / "masks/000000.png").exists()


def test_a_file_system_without_locks_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))  # as NFS does

    monkeypatch.setattr(fcntl, "flock", refuse)
    with LabelFolder(tmp_path / "masks", overwrite=False):
        assert "a second run into it would not be noticed" in caplog.text


@pytest.mark.parametrize("loss", ["deleted", "moved", "replaced"])
@pytest.mark.parametrize("signal", [None, Signal("retrying", "no data", 0)])
def test_a_folder_that_disappears_is_noticed_at_the_next_frame(
    tmp_path: Path, loss: str, signal: Signal | None
) -> None:
    folder, source = tmp_path / "masks", (replace(frame, signal=signal) for frame in frames(1))
    run = masks(folder)(chain(frames(0), source))
    next(run)
    if loss == "deleted":
        shutil.rmtree(folder)
    else:
        folder.rename(tmp_path / "elsewhere")
    if loss == "replaced":
        folder.mkdir()
    with pytest.raises(OutputError, match="the folder was deleted or moved during the run"):
        next(run)
    assert loss == "replaced" or not folder.exists()


def test_a_folder_that_disappears_is_noticed_while_no_frame_comes(tmp_path: Path) -> None:
    errors: list[str] = []

    def source() -> Iterator[Frame]:
        yield from frames(0)
        shutil.rmtree(tmp_path / "masks")
        wait_until(lambda: errors, within_s=10)

    run = masks(tmp_path / "masks", fail=lambda error: errors.append(str(error)))(source())
    assert [frame.seq for frame in run] == [0]
    assert errors == [f"cannot write {tmp_path / 'masks'}: the folder was deleted or moved during the run"]


def test_the_folder_of_a_live_source_is_named_by_its_start(tmp_path: Path) -> None:
    lines: list[str] = []
    for _ in range(2):  # within a second, as a service may restart
        list(masks(tmp_path / "masks", recorded=False, announce=lines.append)(frames(0)))
    first, second = sorted(tmp_path.iterdir(), key=lambda folder: (len(folder.name), folder.name))
    assert re.fullmatch(r"masks-\d{8}T\d{6}Z", first.name)
    assert second.name in (f"{first.name}-2", lines[1].split("/")[-2])
    assert [line.split("/")[-2] for line in lines] == [first.name, second.name]
    list(masks(tmp_path / "labels", recorded=False, overwrite=True)(frames(0)))
    assert (tmp_path / "labels/000000.png").exists()


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
        ("no/masks", "no such folder: .*no/masks; create it first"),
        ("no/masks/{stream}", "no such folder: .*no/masks; create it first"),
        ("file", "file exists and is not a folder"),
    ],
)
def test_an_unwritable_folder_is_refused_before_the_first_frame(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    source = frames(0)
    with pytest.raises(OutputError, match=reason):
        next(Masks(tmp_path / path)(source))
    assert next(source).seq == 0
