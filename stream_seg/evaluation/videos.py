"""Measure the stability and CPU time of labels over time, by running the stages on labelled videos."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table

from stream_seg.datasets.labelled import list_pairs, read_pair, synth_label_table
from stream_seg.datasets.palettes import CAMVID
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix, format_percent
from stream_seg.errors import SourceError
from stream_seg.evaluation import temporal_metrics as metrics
from stream_seg.frame import Frame, Truth
from stream_seg.installation import find_file
from stream_seg.network.network import open_network
from stream_seg.ops.motion import Motion, warp
from stream_seg.stages.base import Stage
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth
from stream_seg.stages.synthetic import Synthetic
from stream_seg.types import VOID, Classes, Labels
from stream_seg.zoo import refuse_untrained

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
POLICIES: Mapping[str, Callable[..., tuple[Stage, ...]]] = MappingProxyType(
    {
        "per_frame": lambda **engine: (Segment(**engine),),
        "smoothed": lambda **engine: (Segment(**engine), Smooth()),
        **{f"every_{n}": lambda n=n, **engine: (Segment(every=n, **engine), Smooth()) for n in (2, 3, 5, 10)},
        "auto": lambda **engine: (Segment(every="auto", **engine), Smooth()),
    }
)
"""The stages of each way to label a video, by name in the results; called with keys of `segment`."""

WARM_UP = 2
"""Frames at the start whose CPU time is not counted."""
MIN_SHARE = 0.01
"""Smallest share of all pixels for which a rate among them is reported."""


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


def evaluate_videos(
    network: str | Path | Mapping[str, Any],
    data: Path | None,
    *,
    split: str = "val",
    frames: int = 60,
    engine: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the metrics of every policy on DATA/SPLIT, or on the synthetic scene `drive`, and on all synthetic scenes.

    {policy: metrics, "scenes": {scene: {policy: metrics}}, network, backend, precision, device, drive, frames}.
    `frames` is the length of a scene; its classes are those of the network, by name. If they share no name, `scenes` is
    empty, and `data` is required. Raises SourceError, NetworkError or ConfigError.
    """
    refuse_untrained(network)
    options = {"network": str(network) if isinstance(network, Path) else network, **engine}
    classes = open_network(network, size=engine.get("size")).classes
    scenes: dict[str, Any] = {}
    drive = None if data is None else read_drive(data, split, classes=classes)
    for scene in SCENES if drive is None or set(classes.names) & set(CAMVID.names) else ():
        synthetic = render_drive(scene, frames=frames, classes=classes)
        scenes[scene] = {name: measure_stages(synthetic, stages(**options)) for name, stages in POLICIES.items()}
    if drive is None:
        results = {"drive": "synth://road", "frames": frames, **scenes["drive"]}
    else:
        results = {"drive": str(data), "frames": len(drive.frames)}
        results |= {name: measure_stages(drive, stages(**options)) for name, stages in POLICIES.items()}
    semantic = next(iter(Segment(**options)(iter((drive or synthetic).frames[:1])))).semantic
    assert semantic is not None
    return {**vars(semantic.engine), **results, "scenes": scenes}


def measure_stages(drive: Drive, stages: Sequence[Stage]) -> dict[str, Any]:
    """Run a drive through stages; return the metrics of `measure_quality`, and cpu_ms, cpu_p50_ms, cpu_p95_ms.

    CPU time is in milliseconds of the process per frame, for all stages and for the labels, which are computed on first
    access: mean, median and 95th percentile. On one idle core that is the time that a frame takes.
    """
    predicted: list[Labels] = []
    times_ms: list[float] = []
    began_s = time.process_time()
    stream = iter(drive.frames)
    for stage in stages:
        stream = stage(stream)
    for frame in stream:
        assert frame.semantic is not None
        _ = frame.semantic.labels
        times_ms.append(1000 * (time.process_time() - began_s))
        predicted.append(frame.labels)
        began_s = time.process_time()
    warm = times_ms[WARM_UP:] or times_ms
    percentiles = {f"cpu_p{share}_ms": float(np.percentile(warm, share)) for share in (50, 95)}
    return {**measure_quality(drive, predicted), "cpu_ms": float(np.mean(warm)), **percentiles}


def measure_quality(drive: Drive, predicted: Sequence[Labels]) -> dict[str, float | None]:
    """Return miou, vc8, vc16, tc, flicker, flicker_followed and boundary_f of labels: 0 to 1, None if undefined."""
    truths = [frame.truth for frame in drive.frames if frame.truth is not None]
    truth, classes = [each.labels for each in truths], truths[0].classes
    count = len(classes)
    matrix = sum(confusion_matrix(t, p, classes=count) for t, p in zip(truth, predicted, strict=True))
    agreement = np.zeros((count, count + 1), np.int64)
    flips = {"flicker": np.zeros(2), "flicker_followed": np.zeros(2)}
    for k, motion in enumerate(drive.motion):
        visible = drive.visible[k]
        if motion is None or visible is None:
            continue
        previous, true = (warp(labels, motion, nearest=True) for labels in (predicted[k - 1], truth[k - 1]))
        agreement += confusion_matrix(np.where(visible, previous, VOID).astype(np.uint8), predicted[k], classes=count)
        stays = (truth[k] == truth[k - 1]) & (truth[k] != VOID) & metrics.still_mask(motion)
        flips["flicker"] += (predicted[k] != predicted[k - 1])[stays].sum(), stays.sum()
        follows = (truth[k] == true) & (truth[k] != VOID) & visible
        flips["flicker_followed"] += (predicted[k] != previous)[follows].sum(), follows.sum()
    fewest = MIN_SHARE * sum(labels.size for labels in truth)
    scores = [metrics.boundary_f(t, p, classes=count) for t, p in zip(truth, predicted, strict=True)]
    outlines = [score for score in scores if score is not None]
    return {
        "miou": compute_metrics(np.asarray(matrix), classes)["miou"],
        **{f"vc{n}": metrics.video_consistency(truth, predicted, n) for n in (8, 16)},
        "tc": compute_metrics(agreement, classes)["miou"],
        **{name: float(changed / of) if of > fewest else None for name, (changed, of) in flips.items()},
        "boundary_f": float(np.mean(outlines)) if outlines else None,
    }


def tabulate_videos(results: Mapping[str, Any]) -> Table:
    """Return the result of `evaluate_videos` as a table for a terminal: a row per policy and drive."""
    caption = f"{results['network']}, {results['backend']}, {results['precision']}; percent, CPU in ms per frame"
    caption += f"\nwhat the columns mean: {find_file('docs/temporal.md')}"
    table = Table("", "", title="Labels over time", caption=caption, box=None, padding=(0, 2, 0, 0))
    keys = ("miou", "vc8", "vc16", "tc", "flicker", "flicker_followed", "boundary_f")
    for heading in ("mIoU", "VC8", "VC16", "TC", "flicker", "followed", "outline", "CPU"):
        table.add_column(heading, justify="right")
    for name, rows in {Path(results["drive"]).name: results, **results["scenes"]}.items():
        for policy in POLICIES:
            row = rows[policy]
            table.add_row(name, policy, *(format_percent(row[key]) for key in keys), f"{row['cpu_ms']:.1f}")
            name = ""
    return table
