"""Videos whose truth is known: a labelled drive on disk, and drawn ones of every kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stream_seg.datasets.labelled import pair_paths, read_pair, synth_labels
from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import SourceError
from stream_seg.evaluation import temporal_metrics as measures
from stream_seg.frame import Frame, Truth
from stream_seg.ops.motion import Motion
from stream_seg.stages.synthetic import Synthetic
from stream_seg.types import Classes

SCENES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "drive": {},
        "static": {"camera": "static", "shake": 0},
        "pan": {"camera": "pan"},
        "shake": {"shake": 8},
        "occlusion": {"camera": "static", "shake": 0, "crossing": True},
        "cut": {"cut": 20},
        "exposure": {"exposure": 15},
        "dropped": {"drop": 3},
    }
)
"""Drawn drives, by name: keys of the synthetic source. Camera and shake of the first four are the motion alone."""

RATE = 15
"""Frames per second, of CamVid's val split."""


@dataclass(frozen=True)
class Drive:
    """Frames with their truth, and what the measures need of each after the first: the motion since the frame before
    (None after a cut) and where the points of that frame are still in sight."""

    frames: Sequence[Frame]
    motion: Sequence[Motion | None]
    visible: Sequence[measures.Mask | None]

    @classmethod
    def of(cls, frames: Sequence[Frame], motion: Sequence[Motion | None]) -> Drive:
        pictures = [frame.image for frame in frames]
        seen = [None if m is None else measures.visible(pictures[k - 1], pictures[k], m) for k, m in enumerate(motion)]
        return cls(frames, motion, seen)


def labelled_drive(data: Path, split: str, *, classes: Classes) -> Drive:
    """DATA/SPLIT as a video at 15 frames/s, as CamVid's val is, in the order of the names; motion by Farneback's flow.

    Raises SourceError where it is not a sequence of pictures of one size.
    """
    frames: list[Frame] = []
    for k, pair in enumerate(pair_paths(data, split)):
        image, labels = read_pair(*pair, classes=len(classes))
        if frames and image.shape != frames[0].image.shape:
            raise SourceError(f"{pair[0]}: of another size than the first picture; a drive has one size")
        frames.append(Frame(split, k, k, Fraction(1, RATE), 0, image, truth=Truth(labels, classes, None)))
    if len(frames) < 2:
        raise SourceError(f"{data / split}: a drive has at least two pictures")
    return Drive.of(frames, [None, *(measures.reference_flow(a.image, b.image) for a, b in pairwise(frames))])


def drawn_drive(scene: str, *, frames: int, seed: int = 4, classes: Classes = CAMVID) -> Drive:
    """A scene of SCENES, 480x360 at 15 frames/s, with its exact motion, and its labels in `classes`, by name.

    What is drawn and has no name there is void. Raises ConfigError where no name is shared.
    """
    table = synth_labels(classes, of="the network")
    keys = {"width": 480, "height": 360, "rate": RATE, "frames": frames, "seed": seed, "truth": True, **SCENES[scene]}
    drawn = []
    for frame in Synthetic(**keys)(iter(())):
        assert frame.truth is not None
        drawn.append(replace(frame, truth=Truth(table[frame.truth.labels], classes, frame.truth.motion)))
    return Drive.of(drawn, [frame.truth.motion if frame.truth else None for frame in drawn])
