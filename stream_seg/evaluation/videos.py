"""Measure the stability and CPU time of labels over time, by running the stages on labelled videos."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table

from stream_seg.datasets.palettes import CAMVID
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix, format_percent
from stream_seg.evaluation import temporal_metrics as metrics
from stream_seg.evaluation.drives import SCENES, Drive, read_drive, render_drive
from stream_seg.network.network import open_network
from stream_seg.ops.motion import warp
from stream_seg.stages.base import Stage
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth
from stream_seg.types import VOID, Labels

POLICIES: Mapping[str, Callable[..., tuple[Stage, ...]]] = MappingProxyType(
    {
        "per_frame": lambda **engine: (Segment(**engine),),
        "smoothed": lambda **engine: (Segment(**engine), Smooth()),
        "every_2": lambda **engine: (Segment(every=2, **engine), Smooth()),
        "every_3": lambda **engine: (Segment(every=3, **engine), Smooth()),
        "every_5": lambda **engine: (Segment(every=5, **engine), Smooth()),
        "every_10": lambda **engine: (Segment(every=10, **engine), Smooth()),
        "auto": lambda **engine: (Segment(every="auto", **engine), Smooth()),
    }
)
"""The stages of each way to label a video, by name in the results; called with keys of `segment`."""

WARM_UP = 2
"""Frames at the start whose CPU time is not counted."""
MIN_SHARE = 0.01
"""Smallest share of all pixels for which a rate among them is reported."""


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
