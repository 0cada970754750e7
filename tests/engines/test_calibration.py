"""Calibration pictures: the right ones, evenly, some held back; what cannot serve is refused in one line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.engines.calibration import Sample, drawn, sampled, spread
from stream_seg.errors import ConfigError, SourceError, StreamSegError
from stream_seg.types import VOID
from tests.support.clips import numbered as numbered_picture
from tests.support.clips import write_video

SIZE = (16, 24)


def picture_folder(folder: Path, count: int) -> Path:
    """COUNT pictures, their number in every pixel."""
    folder.mkdir()
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), number, np.uint8))
    return folder


def numbered(count: int) -> list[Sample]:
    return [Sample(str(n), np.full((2, 2, 3), n % 256, np.uint8)) for n in range(count)]


@pytest.mark.parametrize(("count", "most"), [(3, 8), (8, 8), (9, 8), (100, 8), (1000, 7)])
def test_samples_are_spread_evenly(count: int, most: int) -> None:
    kept = [int(sample.name) for sample in spread(iter(numbered(count)), most)]
    assert len(kept) == min(count, most)
    assert kept[0] == 0
    gaps = np.diff([*kept, count])
    assert gaps.max() <= 2.5 * count / len(kept), kept
    assert gaps.min() >= 1


def test_a_folder(tmp_path: Path) -> None:
    found = sampled(str(picture_folder(tmp_path / "p", 20)), SIZE, classes=2, pictures=8)
    fit, held = ([int(s.image[0, 0, 0]) for s in part] for part in (found.fit, found.held_back))
    assert len(fit) == 6
    assert len(held) == 2
    assert not set(fit) & set(held)
    assert sorted(fit + held)[0] == 0
    assert sorted(fit + held)[-1] == 19
    assert {s.image.shape for s in found.fit} == {(*SIZE, 3)}


def test_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", (numbered_picture(n) for n in range(30)))
    found = sampled(str(path), SIZE, classes=2, pictures=8)
    assert (len(found.fit), len(found.held_back)) == (6, 2)
    assert [sample.name for sample in found.fit][:2] == ["frame 0", "frame 4"]


def test_labels_belong_to_their_pictures(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "p", 8)
    annotations = tmp_path / "a"
    annotations.mkdir()
    for number in range(8):
        cv2.imwrite(str(annotations / f"{number}.png"), np.full((20, 30), number, np.uint8))
    found = sampled(str(folder), SIZE, classes=7, labels=annotations)
    for sample in (*found.fit, *found.held_back):
        number = int(sample.image[0, 0, 0])
        assert sample.truth is not None
        assert sample.truth.shape == (20, 30)
        assert sample.truth[0, 0] == (number if number < 7 else VOID)
    with pytest.raises(SourceError, match=r"a/5\.png: label 5 is out of range; .* the network has 4 classes"):
        sampled(str(folder), SIZE, classes=4, labels=annotations)
    cv2.imwrite(str(annotations / "4.png"), np.zeros((20, 29), np.uint8))
    with pytest.raises(SourceError, match=r"a/4\.png: 29 x 20, its picture is 30 x 20; both must be of one size"):
        sampled(str(folder), SIZE, classes=7, labels=annotations)
    (annotations / "3.png").unlink()
    with pytest.raises(SourceError, match=r"a/3\.png: No such file"):
        sampled(str(folder), SIZE, classes=7, labels=annotations)


def test_what_was_judged_on_is_told_apart(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "p", 8)
    annotations = tmp_path / "a"
    annotations.mkdir()
    for number in range(8):
        cv2.imwrite(str(annotations / f"{number}.png"), np.zeros((20, 30), np.uint8))
    plain, first = (sampled(str(folder), SIZE, classes=2, labels=labels) for labels in (None, annotations))
    again = sampled(str(folder), SIZE, classes=2, labels=annotations)
    cv2.imwrite(str(annotations / "3.png"), np.ones((20, 30), np.uint8))  # held back
    corrected = sampled(str(folder), SIZE, classes=2, labels=annotations)
    cv2.imwrite(str(folder / "3.png"), np.full((20, 30, 3), 99, np.uint8))
    other = sampled(str(folder), SIZE, classes=2, labels=annotations)
    assert first.judged_on() == again.judged_on()
    assert len({found.judged_on() for found in (plain, first, corrected, other)}) == 4


def test_the_digest_is_of_pictures_and_settings(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "p", 8)
    first = sampled(str(folder), SIZE, classes=2)
    assert first.digest("x") == sampled(str(folder), SIZE, classes=2).digest("x") != first.digest("y")
    cv2.imwrite(str(folder / "0.png"), np.full((20, 30, 3), 99, np.uint8))
    assert sampled(str(folder), SIZE, classes=2).digest("x") != first.digest("x")


def test_the_drawn_drive_stands_in() -> None:
    found = drawn(SIZE, pictures=4)
    assert (len(found.fit), len(found.held_back)) == (2, 2)
    assert found.fit[0].image.std() > 10


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        ("empty", SourceError, "holds no picture"),
        ("missing", SourceError, "no such file"),
        ("few", SourceError, "3 pictures; at least 4 are needed"),
        ("text.mp4", SourceError, "text.mp4"),
        ("broken", SourceError, "2.png: no picture in it can be decoded"),
        ("rtsp://camera/", ConfigError, "cannot be calibrated on"),
        ("synth://road", ConfigError, "cannot be calibrated on"),
        ("/dev/video0", ConfigError, "cannot be calibrated on"),
    ],
)
def test_what_cannot_serve(tmp_path: Path, place: str, error: type[StreamSegError], said: str) -> None:
    (tmp_path / "empty").mkdir()
    picture_folder(tmp_path / "few", 3)
    (picture_folder(tmp_path / "broken", 5) / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    (tmp_path / "text.mp4").write_text("no video")
    source = place if ":" in place or place.startswith("/") else str(tmp_path / place)
    with pytest.raises(error, match=said) as refused:
        sampled(source, SIZE, classes=2)
    assert "\n" not in str(refused.value)
