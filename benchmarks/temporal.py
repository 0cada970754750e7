"""Measure accuracy, stability and CPU time of the policies of `eval --temporal` on a drive, and of `smooth` by weight.

The drive is a labelled split of consecutive images (--data, such as CamVid val) or a synthetic one. --plots writes
plots, and a strip of images of a synthetic drive before and after smoothing. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

from stream_seg.evaluation.videos import (
    POLICIES,
    Drive,
    measure_quality,
    measure_stages,
    read_drive,
    render_drive,
)
from stream_seg.frame import Frame
from stream_seg.network.network import open_network
from stream_seg.ops import motion
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth, blend
from stream_seg.types import VOID, Image, Labels

MAGENTA = (255, 0, 255)
WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95)
UNSMOOTHED_INTERVALS = (2, 3, 5, 10)


def main(
    data: Annotated[
        Path | None, typer.Option(help="A folder with SPLIT/ and SPLITannot/ of consecutive frames.")
    ] = None,
    split: Annotated[str, typer.Option(help="Name of the split.")] = "val",
    network: Annotated[str, typer.Option(help="Name or file of a network.")] = "road",
    frames: Annotated[int, typer.Option(min=4, help="Frames of a synthetic drive.")] = 60,
    plots: Annotated[Path | None, typer.Option(help="A folder for plots and images.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure accuracy, stability and CPU time of every way to label a video."""
    cv2.setNumThreads(1)
    facts: dict[str, Any] = {
        "machine": describe_machine(),
        "network": network,
        "drive": "synth://road" if data is None else split,
    }
    drive = render_drive("drive", frames=frames)
    if data is not None:
        drive = read_drive(data, split, classes=open_network(network).classes)
    facts["policies"] = {name: measure_stages(drive, stages(network=network)) for name, stages in POLICIES.items()}
    facts["unsmoothed"] = {
        f"every_{n}": measure_stages(drive, (Segment(network=network, every=n),)) for n in UNSMOOTHED_INTERVALS
    }
    segmented = list(Segment(network=network)(iter(drive.frames)))
    facts["weights"] = {weight: measure_weight(drive, segmented, weight) for weight in WEIGHTS}
    facts["smooth_ms"] = measure_parts(segmented[0], segmented[1])
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        write_plots(facts, plots)
        write_strip(network, plots / "strip.jpg")
    print_results(facts, [*tables(facts)], json_file)


def measure_weight(drive: Drive, segmented: Sequence[Frame], weight: float) -> dict[str, float | None]:
    """Return the quality of a segmented drive, smoothed with `weight`."""
    return measure_quality(drive, labels_of(Smooth(weight=weight)(iter(segmented))))


def labels_of(frames: Iterable[Frame]) -> list[Labels]:
    """Return the labels of frames, at the size of their images."""
    return [frame.labels for frame in frames]


def measure_parts(before: Frame, now: Frame) -> dict[str, float]:
    """Return CPU-ms of each part of `smooth`, the median of 50."""
    assert before.semantic is not None
    assert now.semantic is not None
    past, scores = before.semantic.scores, now.semantic.scores
    assert past is not None
    assert scores is not None
    grey = motion.compute_luma(before.image), motion.compute_luma(now.image)
    flow = motion.estimate_flow(*grey)
    confidence = motion.estimate_confidence(*grey, flow)
    parts: dict[str, Callable[[], object]] = {
        "luminance": lambda: motion.compute_luma(now.image),
        "flow": lambda: motion.estimate_flow(*grey),
        "confidence": lambda: motion.estimate_confidence(*grey, flow),
        "filter": lambda: blend(past, scores, flow, confidence, weight=0.8),
    }
    times_ms = {name: float(np.median([_cpu_ms(part) for _ in range(50)])) for name, part in parts.items()}
    return {**times_ms, "all": sum(times_ms.values())}


def _cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began)


def tables(facts: Mapping[str, Any]) -> Any:
    """Yield tables of policies, weights and parts for a terminal."""
    keys = ("miou", "vc8", "vc16", "tc", "flicker", "flicker_followed", "boundary_f")
    groups = {
        f"on {facts['drive']}": facts["policies"],
        "key frames without smooth": facts["unsmoothed"],
        "smooth by weight": facts["weights"],
    }
    for title, rows in groups.items():
        table = figures_table(title, "percent", *keys, "cpu_ms", "cpu_p95_ms")
        for name, row in rows.items():
            shares = ["-" if row[key] is None else f"{100 * row[key]:.2f}" for key in keys]
            table.add_row(
                str(name), *shares, *(f"{row[key]:.1f}" if key in row else "" for key in ("cpu_ms", "cpu_p95_ms"))
            )
        yield table
    table = figures_table("smooth at the network's resolution", *("CPU-ms", *facts["smooth_ms"]))
    table.add_row("", *(f"{ms:.2f}" for ms in facts["smooth_ms"].values()))
    yield table


def write_plots(facts: Mapping[str, Any], folder: Path) -> None:
    """Write accuracy.png (mIoU over CPU time), weight.png (mIoU, consistency and flicker by weight) and latency.png
    (percentiles by policy)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    policies, weights = facts["policies"], facts["weights"]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, row in policies.items():
        axes.plot(row["cpu_ms"], 100 * row["miou"], "o")
        aside = (-30, 5) if name == "auto" else (5, 5)
        axes.annotate(name, (row["cpu_ms"], 100 * row["miou"]), aside, textcoords="offset points")
    axes.set(
        xlabel="CPU-ms per frame, segment + smooth", ylabel="mIoU, %", title=f"Accuracy over cost, {facts['drive']}"
    )
    axes.margins(0.25)
    figure.savefig(folder / "accuracy.png", dpi=110)
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for axes, key, title in zip(panels, ("miou", "tc", "flicker_followed"), ("mIoU", "TC", "flicker"), strict=True):
        axes.plot(list(weights), [100 * row[key] for row in weights.values()], "o-")
        axes.axvline(Smooth().weight, color="grey", linestyle=":", label="default")
        axes.set(xlabel="weight", title=f"{title}, %")
    panels[0].legend()
    figure.savefig(folder / "weight.png", dpi=110)
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for key, width in (("cpu_p95_ms", 0.7), ("cpu_p50_ms", 0.4)):
        axes.bar(list(policies), [row[key] for row in policies.values()], width, label=key[4:7])
    axes.set(ylabel="CPU-ms", title="One frame in segment + smooth, one thread")
    axes.legend()
    figure.savefig(folder / "latency.png", dpi=110)
    plt.close("all")


def write_strip(network: str, path: Path) -> None:
    """Write four frames of a synthetic drive: image, labels per frame, smoothed labels.

    Magenta pixels changed their class since the previous frame, while the true class of their point stayed.
    """
    from matplotlib import pyplot as plt

    drive = render_drive("drive", frames=24, classes=open_network(network).classes)
    segmented = list(Segment(network=network)(iter(drive.frames)))
    rows = {"image": [frame.image for frame in segmented]}
    for name, frames in {"per frame": segmented, "smoothed": list(Smooth()(iter(segmented)))}.items():
        labels = labels_of(frames)
        rows[name] = [segmented[0].image, *(_flips(drive, labels, k) for k in range(1, len(labels)))]
    figure, panels = plt.subplots(3, 4, figsize=(12, 7), layout="constrained")
    for row, (name, images) in zip(panels, rows.items(), strict=True):
        row[0].set_ylabel(name, fontsize=13)
        for axes, image in zip(row, images[-4:], strict=True):
            axes.imshow(image[..., ::-1])
            axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=90, pil_kwargs={"quality": 88})
    plt.close(figure)


def _flips(drive: Drive, labels: Sequence[Labels], k: int) -> Image:
    flow, truth = drive.motion[k], drive.frames[k].truth
    before = drive.frames[k - 1].truth
    assert flow is not None
    assert truth is not None
    assert before is not None
    previous, true = (motion.warp(each, flow, nearest=True) for each in (labels[k - 1], before.labels))
    image = truth.classes.bgr[labels[k]]
    image[(previous != labels[k]) & (true == truth.labels) & (truth.labels != VOID)] = MAGENTA
    return np.asarray(image, np.uint8)


if __name__ == "__main__":
    run_command(main)
