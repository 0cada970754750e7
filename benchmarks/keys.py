"""Compare `every: auto` with fixed key-frame intervals: mIoU over the share of key frames.

On synthetic drives, and with --data on a labelled split of consecutive images, alone and after a standing camera: on an
even drive there is nothing to choose, on one that stands and goes there is. The network runs on every frame once; key
frames are then chosen from its results. Fixed intervals start at each of their phases, of which the mean counts; `auto`
runs with many values of MAX_DOUBT, each compared with the line through the fixed intervals at the same share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

from stream_seg.datasets.scoring import compute_metrics as accuracy
from stream_seg.datasets.scoring import confusion_matrix
from stream_seg.evaluation.videos import Drive, read_drive, render_drive
from stream_seg.frame import Frame, Semantic
from stream_seg.keyframes.keyframes import MAX_DOUBT, Every, KeyFrames
from stream_seg.network.network import open_network
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth
from stream_seg.types import Image

INTERVALS = (1, 2, 3, 4, 5, 7, 10)
DOUBTS = (0.4, 0.6, 0.75, MAX_DOUBT, 1.1, 1.4, 1.8, 2.3)
Point = tuple[float, float]
"""Share of key frames, mIoU."""


@dataclass(frozen=True)
class SegmentedDrive:
    """Frames of one stream, each segmented by the network."""

    frames: Sequence[Frame]

    @classmethod
    def join(cls, *drives: SegmentedDrive) -> SegmentedDrive:
        """Return drives one after the other."""
        frames = [frame for drive in drives for frame in drive.frames]
        return cls([replace(frame, stream="joined", seq=k, pts=k) for k, frame in enumerate(frames)])


def main(
    data: Annotated[
        Path | None, typer.Option(help="A folder with SPLIT/ and SPLITannot/ of consecutive frames.")
    ] = None,
    split: Annotated[str, typer.Option(help="Name of the split.")] = "val",
    network: Annotated[str, typer.Option(help="Name or file of a network.")] = "road",
    frames: Annotated[int, typer.Option(min=4, help="Frames of a synthetic drive.")] = 60,
    plot: Annotated[Path | None, typer.Option(help="Plot the curves to this file.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the mIoU over the share of key frames, of fixed intervals and of auto."""
    cv2.setNumThreads(1)
    standing, driving = (segment(render_drive(name, frames=frames), network) for name in ("static", "drive"))
    drives = {
        "standing": standing,
        "driving": driving,
        "standing, then driving": SegmentedDrive.join(standing, driving),
    }
    if data is not None:
        real = segment(read_drive(data, split, classes=open_network(network).classes), network)
        drives |= {split: real, f"standing, then {split}": SegmentedDrive.join(standing, real)}
    facts: dict[str, Any] = {"machine": describe_machine(), "network": network}
    facts["drives"] = {name: measure_curves(drive) for name, drive in drives.items()}
    if plot is not None:
        plot_curves(facts["drives"], plot)
    print_results(facts, [*tables(facts["drives"])], json_file)


def segment(drive: Drive, network: str) -> SegmentedDrive:
    """Run the network on every frame of a drive."""
    return SegmentedDrive(list(Segment(network=network)(iter(drive.frames))))


def measure_curves(drive: SegmentedDrive) -> dict[str, Any]:
    """Return {fixed: {k: point}, auto: {doubt: point}, ahead: {doubt: mIoU above the line of the fixed points}}."""
    fixed: dict[int, Point] = {}
    for k in INTERVALS:
        share, miou = np.mean([measure_point(drive, every=k, phase=phase) for phase in range(k)], axis=0)
        fixed[k] = float(share), float(miou)
    auto = {doubt: measure_point(drive, every="auto", doubt=doubt) for doubt in DOUBTS}
    shares, mious = zip(*sorted(fixed.values()), strict=True)
    ahead = {
        doubt: miou - float(np.interp(share, shares, mious))
        for doubt, (share, miou) in auto.items()
        if share >= shares[0]
    }
    return {"fixed": fixed, "auto": auto, "ahead": ahead}


def measure_point(drive: SegmentedDrive, *, every: Every, phase: int = 0, doubt: float = MAX_DOUBT) -> Point:
    """Run a drive through key frames and `smooth`. The first frame and number `phase` are key frames."""
    count, key_frames = 0, KeyFrames(None, max_doubt=doubt)

    def select() -> Iterator[Frame]:
        nonlocal count
        for number, frame in enumerate(drive.frames):
            out, temporal = key_frames.segment(frame, replay(frame), every=1 if 0 < number == phase else every)
            count += temporal.key
            yield replace(out, temporal=temporal)

    matrix = np.zeros((), np.int64)
    for frame in Smooth()(select()):
        assert frame.truth is not None
        assert frame.semantic is not None
        truth, classes = frame.truth.labels, frame.truth.classes
        labels = frame.semantic.labels_at(truth.shape)
        matrix = matrix + confusion_matrix(truth, labels, classes=len(classes))
    return count / len(drive.frames), float(accuracy(matrix, classes)["miou"])


def replay(frame: Frame) -> Callable[[Image], Callable[[], Semantic]]:
    """Return an inference function that returns the result that the frame has already."""

    def infer(_: Image) -> Callable[[], Semantic]:
        semantic = frame.semantic
        assert semantic is not None
        return lambda: semantic

    return infer


def tables(drives: Mapping[str, Any]) -> Any:
    """Yield a table for each drive."""
    for name, curves in drives.items():
        table = figures_table(name, "", "key frames, %", "mIoU, %", "ahead of fixed")
        for k, (share, miou) in curves["fixed"].items():
            table.add_row(f"every {k}", f"{100 * share:.1f}", f"{100 * miou:.2f}", "")
        for doubt, (share, miou) in curves["auto"].items():
            ahead = curves["ahead"].get(doubt)
            cell = "" if ahead is None else f"{100 * ahead:+.2f}"
            table.add_row(f"auto, doubt {doubt}", f"{100 * share:.1f}", f"{100 * miou:.2f}", cell)
        yield table


def plot_curves(drives: Mapping[str, Any], path: Path) -> None:
    """Plot a panel for each drive: the fixed intervals as a line, auto as points, its default filled."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(drives), figsize=(3.2 * len(drives), 3.2), layout="constrained")
    for axes, (name, curves) in zip(panels, drives.items(), strict=True):
        axes.plot(*(100 * np.array(list(curves["fixed"].values()))).T, ".-", color="grey", label="every k")
        points = 100 * np.array(list(curves["auto"].values()))
        axes.plot(*points.T, "o", mfc="none", color="tab:blue", label="auto")
        axes.plot(*points[DOUBTS.index(MAX_DOUBT)], "o", color="tab:blue", label="auto, default")
        axes.set(title=name, xlabel="key frames, %", xlim=(5, 60), ylim=(axes.get_ylim()[0], None))
    panels[0].set_ylabel("mIoU, %")
    panels[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    run_command(main)
