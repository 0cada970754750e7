"""How steady the labels of a video are, and what they cost: the stages themselves on labelled drives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table

from stream_seg.datasets.palettes import CAMVID
from stream_seg.datasets.scoring import confusion, figures, percent
from stream_seg.evaluation import temporal_metrics as measures
from stream_seg.evaluation.drives import SCENES, Drive, drawn_drive, labelled_drive
from stream_seg.frame import Frame, Semantic, Truth
from stream_seg.network.network import open_network
from stream_seg.ops.motion import warped
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
"""Ways to label a video, by the name in the figures: the stages, from what `segment` is to compute with."""

WARM_UP = 2
"""Frames whose cost is not counted."""
FEW = 0.01
"""Share of all pixels at which a share of some of them begins to say something."""


def evaluate(
    network: str | Path | Mapping[str, Any],
    data: Path | None,
    *,
    split: str = "val",
    frames: int = 60,
    engine: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Figures of every policy: on DATA/SPLIT, else on the drawn `drive`; and under `scenes` on every drawn scene.

    {policy: figures, "scenes": {scene: {policy: figures}}, network, backend, precision, device, drive, frames}.
    `frames` is the length of a drawn scene, whose classes are the network's by name; where they share none with DATA
    given, `scenes` is empty. Raises SourceError, NetworkError or ConfigError.
    """
    options = {"network": str(network) if isinstance(network, Path) else network, **engine}
    classes = open_network(network, size=engine.get("size")).classes
    scenes: dict[str, Any] = {}
    first = None if data is None else labelled_drive(data, split, classes=classes)
    for scene in SCENES if first is None or set(classes.names) & set(CAMVID.names) else ():
        drawn = drawn_drive(scene, frames=frames, classes=classes)
        scenes[scene] = {name: measured(drawn, stages(**options)) for name, stages in POLICIES.items()}
    if first is None:
        told = {"drive": "synth://road", "frames": frames, **scenes["drive"]}
    else:
        told = {"drive": str(data), "frames": len(first.frames)}
        told |= {name: measured(first, stages(**options)) for name, stages in POLICIES.items()}
    seen = first or drawn
    semantic = next(iter(Segment(**options)(iter(seen.frames[:1])))).semantic
    assert semantic is not None
    return {**vars(semantic.engine), **told, "scenes": scenes}


def measured(drive: Drive, stages: Sequence[Stage]) -> dict[str, Any]:
    """What stages in a row make of a drive: the figures of `quality`, and cpu_ms, cpu_p50_ms, cpu_p95_ms.

    Shares 0-1, None where nothing could be counted. CPU milliseconds of the process per frame, of all stages together
    and of the labels, without which nobody has seen anything: mean, median and 95th percentile, which on one idle core
    is how long a frame takes.
    """
    said: list[Labels] = []
    spent_ms: list[float] = []
    began_s = time.process_time()
    for frame in chained(iter(drive.frames), stages):
        assert frame.semantic is not None
        _ = frame.semantic.labels
        spent_ms.append(1000 * (time.process_time() - began_s))
        said.append(labels_at(frame.semantic, frame.image.shape[:2]))
        began_s = time.process_time()
    warm = spent_ms[WARM_UP:] or spent_ms
    percentiles = {f"cpu_p{share}_ms": float(np.percentile(warm, share)) for share in (50, 95)}
    return {**quality(drive, said), "cpu_ms": float(np.mean(warm)), **percentiles}


def chained(frames: Iterator[Frame], stages: Sequence[Stage]) -> Iterator[Frame]:
    """The frames through the stages, one after the other."""
    for stage in stages:
        frames = stage(frames)
    return frames


def labels_at(semantic: Semantic, size: tuple[int, ...]) -> Labels:
    """The labels at the size (height, width) of the truth."""
    return semantic.labels_at((size[0], size[1]))


def quality(drive: Drive, said: Sequence[Labels]) -> dict[str, float | None]:
    """What the labels alone decide: miou, vc8, vc16, tc, flicker, flicker_followed, boundary_f."""
    truth, classes = [_truth(frame).labels for frame in drive.frames], _truth(drive.frames[0]).classes
    count = len(classes)
    matrix = sum(confusion(t, s, classes=count) for t, s in zip(truth, said, strict=True))
    agreement = np.zeros((count, count + 1), np.int64)
    flips = {"flicker": np.zeros(2), "flicker_followed": np.zeros(2)}
    for k, motion in enumerate(drive.motion):
        if motion is None:
            continue
        seen = drive.visible[k]
        assert seen is not None
        came, was = (warped(labels, motion, nearest=True) for labels in (said[k - 1], truth[k - 1]))
        agreement += confusion(np.where(seen, came, VOID).astype(np.uint8), said[k], classes=count)
        stays = (truth[k] == truth[k - 1]) & (truth[k] != VOID) & measures.still(motion)
        flips["flicker"] += (said[k] != said[k - 1])[stays].sum(), stays.sum()
        follows = (truth[k] == was) & (truth[k] != VOID) & seen
        flips["flicker_followed"] += (said[k] != came)[follows].sum(), follows.sum()
    few = FEW * sum(labels.size for labels in truth)
    outlines = [
        f for t, s in zip(truth, said, strict=True) if (f := measures.boundary_f(t, s, classes=count)) is not None
    ]
    return {
        "miou": figures(np.asarray(matrix), classes)["miou"],
        **{f"vc{n}": measures.video_consistency(truth, said, n) for n in (8, 16)},
        "tc": figures(agreement, classes)["miou"],
        **{name: float(changed / of) if of > few else None for name, (changed, of) in flips.items()},
        "boundary_f": float(np.mean(outlines)) if outlines else None,
    }


def _truth(frame: Frame) -> Truth:
    assert frame.truth is not None
    return frame.truth


def as_table(found: Mapping[str, Any]) -> Table:
    """The figures for a terminal: a row per policy, on the drive and on every scene."""
    told = f"{found['network']}, {found['backend']}, {found['precision']}; percent, CPU in ms per frame"
    table = Table("", "", title="Labels over time", caption=told, box=None, padding=(0, 2, 0, 0))
    keys = ("miou", "vc8", "vc16", "tc", "flicker", "flicker_followed", "boundary_f")
    for heading in ("mIoU", "VC8", "VC16", "TC", "flicker", "followed", "outline", "CPU"):
        table.add_column(heading, justify="right")
    for name, rows in {Path(found["drive"]).name: found, **found["scenes"]}.items():
        for policy in POLICIES:
            row = rows[policy]
            table.add_row(name, policy, *(percent(row[key]) for key in keys), f"{row['cpu_ms']:.1f}")
            name = ""
    return table
