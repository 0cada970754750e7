"""The user's own pictures, from which a quantisation learns its ranges, and by which its result is judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stream_seg.datasets.labelled import read_labels
from stream_seg.engines.cache_entry import digest
from stream_seg.errors import ConfigError, SourceError
from stream_seg.ops.resize import reduced
from stream_seg.sources.image_header import MAX_PIXELS
from stream_seg.sources.images import image_pictures, picture_files
from stream_seg.sources.uri import Source, parse
from stream_seg.sources.video import video_pictures
from stream_seg.synth import render
from stream_seg.types import Image, Labels

PICTURES = 96
"""Taken of a source unless told otherwise. Ranges settle with a few dozen; the rest is for the judgement."""
FEWEST = 4
TIMEOUTS_S = (5.0, 5.0)
"""To open a video, and for its next data."""
HELD_BACK = 4
"""Every fourth picture is not calibrated on: what is judged on calibrated pictures alone judges itself."""


@dataclass(frozen=True)
class Sample:
    """A picture, uint8 (H, W, 3) at the network's input size, and, where it is known, its truth, at its own size."""

    name: str
    image: Image
    truth: Labels | None = None


@dataclass(frozen=True)
class CalibrationSet:
    """`fit` is calibrated on, `held_back` is not; both are compared. `shown` says where they come from."""

    shown: str
    fit: tuple[Sample, ...]
    held_back: tuple[Sample, ...]

    def digest(self, settings: str) -> str:
        """SHA-256 of the pictures that are calibrated on, and of the quantisation's settings."""
        return digest(b"".join([settings.encode(), *(sample.image.tobytes() for sample in self.fit)]))

    def judged_on(self) -> str:
        """SHA-256 of all pictures and their truths: what an accuracy report is about."""
        samples = (*self.fit, *self.held_back)
        truths = (b"" if s.truth is None else repr(s.truth.shape).encode() + s.truth.tobytes() for s in samples)
        return digest(b"".join([*(sample.image.tobytes() for sample in samples), *truths]))


def sampled(
    source: str, size: tuple[int, int], *, classes: int, labels: Path | None = None, pictures: int = PICTURES
) -> CalibrationSet:
    """Up to `pictures` of DIR or VIDEO, evenly over all of it, at `size` = (height, width), every fourth held back.

    `labels` is a folder of label maps with the pictures' names, ending .png. Raises SourceError for what is missing,
    unreadable, too little or does not fit, ConfigError for a source that never ends.
    """
    where = parse(source)
    if where.kind == "synth" or where.live:
        raise ConfigError(f"{where.shown}: cannot be calibrated on; allowed are a folder of pictures and a video file")
    if labels is not None and where.kind != "images":
        raise ConfigError(f"{where.shown}: labels belong to a folder of pictures, this is a video")
    reader = _of_pictures(where, size, pictures, labels, classes) if where.kind == "images" else _of_video(where, size)
    samples = spread(reader, pictures)
    if len(samples) < FEWEST:
        raise SourceError(f"{where.shown}: {len(samples)} pictures; at least {FEWEST} are needed, some dozens are good")
    fit = tuple(sample for place, sample in enumerate(samples) if place % HELD_BACK != HELD_BACK - 1)
    return CalibrationSet(where.shown, fit, tuple(samples[HELD_BACK - 1 :: HELD_BACK]))


def drawn(size: tuple[int, int], *, pictures: int = 24) -> CalibrationSet:
    """Pictures of the drawn drive, a second apart: something to compare on where the user gave nothing."""
    images = (render(7, number, 640, 360, rate=1.0).image for number in range(pictures))
    samples = tuple(Sample(f"frame {number}", reduced(image, size)) for number, image in enumerate(images))
    return CalibrationSet("the drawn drive", samples[::2], samples[1::2])


def spread(samples: Iterator[Sample], most: int) -> list[Sample]:
    """At most `most` samples of a stream of unknown length, evenly spaced, from its first one on.

    Kept are those whose number is a multiple of a step, which doubles when there are too many: never more than twice
    `most` are held.
    """
    kept: list[Sample] = []
    step = 1
    for number, sample in enumerate(samples):
        if number % step:
            continue
        kept.append(sample)
        if len(kept) >= 2 * most:
            del kept[1::2]
            step *= 2
    if len(kept) <= most:
        return kept
    return [kept[round(place)] for place in np.linspace(0, len(kept) - 1, most)]


def _of_video(where: Source, size: tuple[int, int]) -> Iterator[Sample]:
    frames = video_pictures(where, {}, timeouts_s=TIMEOUTS_S, max_pixels=MAX_PIXELS, threads=0)
    with closing(frames):
        for number, frame in enumerate(frames):
            if frame is not None:
                yield Sample(f"frame {number}", reduced(frame.image, size))


def _of_pictures(
    where: Source, size: tuple[int, int], pictures: int, labels: Path | None, classes: int
) -> Iterator[Sample]:
    files = picture_files(where)
    if len(files) > pictures:  # only those that count are decoded
        files = [files[round(place)] for place in np.linspace(0, len(files) - 1, pictures)]
    for file in files:
        source = parse(str(file))
        picture = next(image_pictures(source, rate=1.0, max_pixels=MAX_PIXELS))
        if picture is None:
            raise SourceError(f"{source.shown}: cannot be decoded")
        image, truth = picture.image, None
        if labels is not None:
            truth = read_labels(labels / f"{file.stem}.png", classes=classes, size=image.shape[:2])
        yield Sample(file.name, reduced(image, size), truth)
