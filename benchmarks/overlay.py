"""What drawing costs: the overlay stage at 1920x1080 from labels of 352x480, against a blend in numpy floats.

In turns (A B A B), one thread, CPU-ms per frame; the overlay with legend and figures, as by default.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from surroundings import command, figures, finish, machine

from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.stages.overlay import Overlay
from stream_seg.stages.synthetic import Synthetic

SIZE = (352, 480)
WARM_UP_FRAMES = 3


def main(
    frames: Annotated[int, typer.Option(min=10, help="Frames measured.")] = 60,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """CPU-ms per frame of the overlay at 1080p, against a blend in numpy floats."""
    facts: dict[str, Any] = {"machine": machine(), "frames": frames}
    drawn = [labelled(frame) for frame in islice(Synthetic(width=1920, height=1080, truth=True)(iter(())), 12)]
    contenders: dict[str, Callable[[list[Frame]], object]] = {
        "overlay": lambda batch: list(Overlay()(iter(batch))),
        "numpy": lambda batch: [numpy_blend(frame) for frame in batch],
    }
    spent_ms: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(frames + WARM_UP_FRAMES):
        for name, draw in contenders.items():
            batch = [copied(frame) for frame in drawn]
            began_s = time.process_time()
            draw(batch)
            if number >= WARM_UP_FRAMES:
                spent_ms[name].append(1000 * (time.process_time() - began_s) / len(batch))
    facts["cpu_ms"] = {name: summary(values) for name, values in spent_ms.items()}
    facts["ratio"] = round(facts["cpu_ms"]["numpy"]["p50"] / facts["cpu_ms"]["overlay"]["p50"], 1)
    shown = figures("drawing at 1920x1080", "CPU-ms per frame", "median", "p99")
    for name, row in facts["cpu_ms"].items():
        shown.add_row(name, f"{row['p50']:.2f}", f"{row['p99']:.2f}")
    finish(facts, [shown], json_file)


def labelled(frame: Frame) -> Frame:
    """The frame with its own truth as what a network said, at a network's size."""
    assert frame.truth is not None
    verdict = np.asarray(cv2.resize(frame.truth.labels, SIZE[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    said = Semantic(frame.truth.classes, EngineInfo("truth", "none", "exact", "none"), SIZE, verdict=verdict)
    return replace(frame, semantic=said, truth=None)


def copied(frame: Frame) -> Frame:
    """The frame with a picture of its own, since the overlay draws in place."""
    return replace(frame, image=frame.image.copy())


def numpy_blend(frame: Frame) -> np.ndarray[Any, Any]:
    """Palette indexing and a float blend, as people write it."""
    assert frame.semantic is not None
    labels = cv2.resize(frame.semantic.labels, frame.image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(0.5 * frame.image + 0.5 * frame.semantic.classes.bgr[labels]).astype(np.uint8)


def summary(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {f"p{share}": round(float(np.percentile(values, share)), 3) for share in (50, 99)}


if __name__ == "__main__":
    command(main)
