"""Whether `every: auto` asks the network at the right frames: mIoU over the share of key frames, against every fixed k.

On drawn drives, and with --data on a labelled split of consecutive pictures, alone and after a standing camera: where
a drive goes on evenly there is nothing to choose, where it stands and goes there is. The network looks at every frame
once; then key frames are chosen from what it said. Fixed intervals start at each of their phases, and the mean counts;
`auto` at many values of `keys.DOUBT`, each against the line through the fixed intervals at the same share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from surroundings import command, figures, finish, machine

from stream_seg.datasets.scoring import confusion
from stream_seg.datasets.scoring import figures as accuracy
from stream_seg.evaluation.drives import Drive, drawn_drive, labelled_drive
from stream_seg.frame import Frame, Semantic
from stream_seg.keyframes.keyframes import DOUBT, Every, Keys
from stream_seg.network.network import open_network
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth
from stream_seg.types import Image

INTERVALS = (1, 2, 3, 4, 5, 7, 10)
DOUBTS = (0.4, 0.6, 0.75, DOUBT, 1.1, 1.4, 1.8, 2.3)
Point = tuple[float, float]
"""Share of key frames, mIoU."""


@dataclass(frozen=True)
class Looked:
    """Frames of one stream, with what the network says of each."""

    frames: Sequence[Frame]

    @classmethod
    def joined(cls, *drives: Looked) -> Looked:
        """One after the other."""
        frames = [frame for drive in drives for frame in drive.frames]
        return cls([replace(frame, stream="joined", seq=k, pts=k) for k, frame in enumerate(frames)])


def main(
    data: Annotated[
        Path | None, typer.Option(help="A folder with SPLIT/ and SPLITannot/ of consecutive frames.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    network: Annotated[str, typer.Option(help="A network by name or file.")] = "road",
    frames: Annotated[int, typer.Option(min=4, help="Frames of a drawn drive.")] = 60,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """mIoU over the share of key frames, of fixed intervals and of auto."""
    cv2.setNumThreads(1)
    standing, driving = (looked(drawn_drive(name, frames=frames), network) for name in ("static", "drive"))
    drives = {"standing": standing, "driving": driving, "standing, then driving": Looked.joined(standing, driving)}
    if data is not None:
        real = looked(labelled_drive(data, split, classes=open_network(network).classes), network)
        drives |= {split: real, f"standing, then {split}": Looked.joined(standing, real)}
    facts: dict[str, Any] = {"machine": machine(), "network": network}
    facts["drives"] = {name: curves(drive) for name, drive in drives.items()}
    if plot is not None:
        draw(facts["drives"], plot)
    finish(facts, [*tables(facts["drives"])], json_file)


def looked(drive: Drive, network: str) -> Looked:
    """A drive, seen by the network frame by frame."""
    return Looked(list(Segment(network=network)(iter(drive.frames))))


def curves(drive: Looked) -> dict[str, Any]:
    """{fixed: {k: point}, auto: {doubt: point}, ahead: {doubt: mIoU over the line through the fixed ones}}."""
    fixed: dict[int, Point] = {}
    for k in INTERVALS:
        share, miou = np.mean([keyed(drive, every=k, phase=phase) for phase in range(k)], axis=0)
        fixed[k] = float(share), float(miou)
    auto = {doubt: keyed(drive, every="auto", doubt=doubt) for doubt in DOUBTS}
    shares, mious = zip(*sorted(fixed.values()), strict=True)
    ahead = {
        doubt: miou - float(np.interp(share, shares, mious))
        for doubt, (share, miou) in auto.items()
        if share >= shares[0]
    }
    return {"fixed": fixed, "auto": auto, "ahead": ahead}


def keyed(drive: Looked, *, every: Every, phase: int = 0, doubt: float = DOUBT) -> Point:
    """The drive through key frames and `smooth`. The first frame is a key frame and so is number `phase`."""
    asked, keys = 0, Keys(None, doubt=doubt)

    def chosen() -> Iterator[Frame]:
        nonlocal asked
        for number, frame in enumerate(drive.frames):
            out, temporal = keys.frame(frame, answer(frame), every=1 if 0 < number == phase else every)
            asked += temporal.key
            yield replace(out, temporal=temporal)

    matrix = np.zeros((), np.int64)
    for frame in Smooth()(chosen()):
        assert frame.truth is not None
        assert frame.semantic is not None
        truth, classes = frame.truth.labels, frame.truth.classes
        said = frame.semantic.labels_at(truth.shape)
        matrix = matrix + confusion(truth, said, classes=len(classes))
    return asked / len(drive.frames), float(accuracy(matrix, classes)["miou"])


def answer(frame: Frame) -> Callable[[Image], Callable[[], Semantic]]:
    """What the network has said of it already."""

    def look(_: Image) -> Callable[[], Semantic]:
        assert frame.semantic is not None
        said = frame.semantic
        return lambda: said

    return look


def tables(drives: Mapping[str, Any]) -> Any:
    """A table for each drive."""
    for name, found in drives.items():
        table = figures(name, "", "key frames, %", "mIoU, %", "ahead of fixed")
        for k, (share, miou) in found["fixed"].items():
            table.add_row(f"every {k}", f"{100 * share:.1f}", f"{100 * miou:.2f}", "")
        for doubt, (share, miou) in found["auto"].items():
            ahead = found["ahead"].get(doubt)
            told = "" if ahead is None else f"{100 * ahead:+.2f}"
            table.add_row(f"auto, doubt {doubt}", f"{100 * share:.1f}", f"{100 * miou:.2f}", told)
        yield table


def draw(drives: Mapping[str, Any], path: Path) -> None:
    """A panel for each drive: the fixed intervals as a line, auto as points, its default filled."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(drives), figsize=(3.2 * len(drives), 3.2), layout="constrained")
    for axes, (name, found) in zip(panels, drives.items(), strict=True):
        axes.plot(*(100 * np.array(list(found["fixed"].values()))).T, ".-", color="grey", label="every k")
        points = 100 * np.array(list(found["auto"].values()))
        axes.plot(*points.T, "o", mfc="none", color="tab:blue", label="auto")
        axes.plot(*points[DOUBTS.index(DOUBT)], "o", color="tab:blue", label="auto, as it is")
        axes.set(title=name, xlabel="key frames, %", xlim=(5, 60), ylim=(axes.get_ylim()[0], None))
    panels[0].set_ylabel("mIoU, %")
    panels[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    command(main)
