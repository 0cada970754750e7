"""Calibration images: evenly spaced, some held back, and one-line errors for unusable sources."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.engines.calibration import QuantizeSettings, Sample, sample_evenly, sample_source
from stream_seg.errors import ConfigError, SourceError, StreamSegError
from stream_seg.types import VOID
from tests.support.clips import number_image, write_video

SIZE = (16, 24)


def make_image_folder(folder: Path, count: int) -> Path:
    """Write `count` images, each with its number in every pixel."""
    folder.mkdir()
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), number, np.uint8))
    return folder


def make_samples(count: int) -> list[Sample]:
    return [Sample(str(n), np.full((2, 2, 3), n % 256, np.uint8)) for n in range(count)]


@pytest.mark.parametrize(("count", "most"), [(3, 8), (8, 8), (9, 8), (100, 8), (1000, 7)])
def test_samples_are_evenly_spaced(count: int, most: int) -> None:
    numbers = [int(sample.name) for sample in sample_evenly(iter(make_samples(count)), most)]
    assert len(numbers) == min(count, most)
    assert numbers[0] == 0
    gaps = np.diff([*numbers, count])
    assert gaps.max() <= 2.5 * count / len(numbers), numbers
    assert gaps.min() >= 1


def test_a_folder(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "p", 20)
    (folder / "._3.png").write_bytes(b"metadata of macOS")
    samples = sample_source(str(folder), SIZE, classes=2, count=8)
    fit, held_back = ([int(s.image[0, 0, 0]) for s in part] for part in (samples.fit, samples.held_back))
    assert len(fit) == 6
    assert len(held_back) == 2
    assert not set(fit) & set(held_back)
    assert sorted(fit + held_back)[0] == 0
    assert sorted(fit + held_back)[-1] == 19
    assert {s.image.shape for s in samples.fit} == {(*SIZE, 3)}


def test_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", (number_image(n) for n in range(30)))
    samples = sample_source(str(path), SIZE, classes=2, count=8)
    assert (len(samples.fit), len(samples.held_back)) == (6, 2)
    assert [sample.name for sample in samples.fit][:2] == ["frame 0", "frame 4"]


def test_labels_are_those_of_their_images(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "p", 8)
    annotations = tmp_path / "a"
    annotations.mkdir()
    for number in range(8):
        cv2.imwrite(str(annotations / f"{number}.png"), np.full((20, 30), number, np.uint8))
    samples = sample_source(str(folder), SIZE, classes=7, labels=annotations)
    for sample in (*samples.fit, *samples.held_back):
        number = int(sample.image[0, 0, 0])
        assert sample.truth is not None
        assert sample.truth.shape == (20, 30)
        assert sample.truth[0, 0] == (number if number < 7 else VOID)
    with pytest.raises(SourceError, match=r"a/5\.png: label 5 is out of range; .* the network has 4 classes"):
        sample_source(str(folder), SIZE, classes=4, labels=annotations)
    cv2.imwrite(str(annotations / "4.png"), np.zeros((20, 29), np.uint8))
    with pytest.raises(SourceError, match=r"a/4\.png: size 29 x 20; expected that of its image, 30 x 20"):
        sample_source(str(folder), SIZE, classes=7, labels=annotations)
    (annotations / "3.png").unlink()
    with pytest.raises(SourceError, match=r"a/3\.png: No such file"):
        sample_source(str(folder), SIZE, classes=7, labels=annotations)


def test_other_images_or_truths_have_another_digest(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "p", 8)
    annotations = tmp_path / "a"
    annotations.mkdir()
    for number in range(8):
        cv2.imwrite(str(annotations / f"{number}.png"), np.zeros((20, 30), np.uint8))
    plain, first = (sample_source(str(folder), SIZE, classes=2, labels=labels) for labels in (None, annotations))
    again = sample_source(str(folder), SIZE, classes=2, labels=annotations)
    cv2.imwrite(str(annotations / "3.png"), np.ones((20, 30), np.uint8))  # held back
    corrected = sample_source(str(folder), SIZE, classes=2, labels=annotations)
    cv2.imwrite(str(folder / "3.png"), np.full((20, 30, 3), 99, np.uint8))
    other = sample_source(str(folder), SIZE, classes=2, labels=annotations)
    assert first.images_digest() == again.images_digest()
    assert len({samples.images_digest() for samples in (plain, first, corrected, other)}) == 4


def test_the_calibration_digest_depends_on_images_and_settings(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "p", 8)
    first = sample_source(str(folder), SIZE, classes=2)
    again = sample_source(str(folder), SIZE, classes=2)
    cv2.imwrite(str(folder / "0.png"), np.full((20, 30, 3), 99, np.uint8))
    other = sample_source(str(folder), SIZE, classes=2)
    settings, mixed = QuantizeSettings(), QuantizeSettings(preset="mixed")
    assert first.calibration_digest(settings) == again.calibration_digest(settings)
    assert first.calibration_digest(settings) != first.calibration_digest(mixed)
    assert first.calibration_digest(settings) != other.calibration_digest(settings)


def test_the_synthetic_drive() -> None:
    samples = sample_source(None, SIZE, classes=2)
    assert (len(samples.fit), len(samples.held_back)) == (12, 12)
    assert samples.fit[0].image.std() > 10


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("empty", SourceError, "contains no image"),
        ("missing", SourceError, "no such file"),
        ("few", SourceError, "3 images; at least 4 are needed"),
        ("text.mp4", SourceError, "text.mp4"),
        ("broken", SourceError, r"2\.png: .*decoded"),
        ("rtsp://camera/", ConfigError, "cannot be calibrated on"),
        ("synth://road", ConfigError, "cannot be calibrated on"),
        ("/dev/video0", ConfigError, "cannot be calibrated on"),
    ],
)
def test_errors_for_unusable_sources(tmp_path: Path, place: str, error: type[StreamSegError], message: str) -> None:
    (tmp_path / "empty").mkdir()
    make_image_folder(tmp_path / "few", 3)
    (make_image_folder(tmp_path / "broken", 5) / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    (tmp_path / "text.mp4").write_text("no video")
    source = place if ":" in place or place.startswith("/") else str(tmp_path / place)
    with pytest.raises(error, match=message) as caught:
        sample_source(source, SIZE, classes=2)
    assert "\n" not in str(caught.value)
