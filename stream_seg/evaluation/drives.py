"""Videos with ground truth: a labelled image sequence on disk, or synthetic scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stream_seg.datasets.labelled import list_pairs, read_pair, synth_label_table
from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import SourceError
from stream_seg.evaluation import temporal_metrics as metrics
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
"""Keys of the synthetic source for each scene. The first four differ only in the motion of the camera."""

RATE = 15
"""Frames per second, as in CamVid's val split."""


@dataclass(frozen=True)
class Drive:
    """Frames with ground truth, and for each the motion since the previous frame and the mask of visible points.

    Motion and mask are None for the first frame and after a cut.
    """

    frames: Sequence[Frame]
    motion: Sequence[Motion | None]

    @cached_property
    def visible(self) -> list[metrics.Mask | None]:
        """The masks of visible points."""
        pairs = [(self.frames[k - 1].image, frame.image) for k, frame in enumerate(self.frames)]
        flows = zip(pairs, self.motion, strict=True)
        return [None if motion is None else metrics.visible_mask(*pair, motion) for pair, motion in flows]


def read_drive(data: Path, split: str, *, classes: Classes) -> Drive:
    """Read DATA/SPLIT as a video at 15 frames/s, as CamVid's val, in the order of the names.

    Its motion is the `reference_flow`. Raises SourceError unless it is a sequence of images of one size.
    """
    frames: list[Frame] = []
    for k, pair in enumerate(list_pairs(data, split)):
        image, labels = read_pair(*pair, classes=len(classes))
        if frames and image.shape != frames[0].image.shape:
            raise SourceError(f"{pair[0]}: of another size than the first image; expected one size")
        frames.append(Frame(split, k, k, Fraction(1, RATE), 0, image, truth=Truth(labels, classes, None)))
    if len(frames) < 2:
        raise SourceError(f"{data / split}: contains one image; expected at least two")
    return Drive(frames, [None, *(metrics.reference_flow(a.image, b.image) for a, b in pairwise(frames))])


def render_drive(scene: str, *, frames: int, seed: int = 4, classes: Classes = CAMVID) -> Drive:
    """Render a scene of SCENES, 480x360 at 15 frames/s, with exact motion and labels in `classes`, by name.

    Classes without a name there become void. Raises ConfigError if no name is shared.
    """
    table = synth_label_table(classes, of="the network")
    keys = {"width": 480, "height": 360, "rate": RATE, "frames": frames, "seed": seed, "truth": True, **SCENES[scene]}
    rendered, motion = [], []
    for frame in Synthetic(**keys)(iter(())):
        assert frame.truth is not None
        rendered.append(replace(frame, truth=Truth(table[frame.truth.labels], classes, frame.truth.motion)))
        motion.append(frame.truth.motion)
    return Drive(rendered, motion)
