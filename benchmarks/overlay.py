"""Measure the overlay stage at 1920x1080 with labels of 384x640, compared with a blend in numpy floats, and its parts.

They alternate (A B A B) in one thread; CPU-ms per frame; the overlay draws legend and figures, as by default. Parts:
`blend` at two sizes, and the labels of scores of half their size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.ops.blend import blend
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.stages.overlay import Overlay
from stream_seg.stages.synthetic import Synthetic
from stream_seg.types import Scores

SIZE = (384, 640)
WARM_UP_FRAMES = 3


def main(
    frames: Annotated[int, typer.Option(min=10, help="Frames to measure.")] = 60,
    json_file: JsonFile = None,
) -> None:
    """Measure CPU-ms per frame of the overlay at 1080p, compared with a blend in numpy floats."""
    facts: dict[str, Any] = {"machine": describe_machine(), "frames": frames}
    labelled = [add_labels(frame) for frame in islice(Synthetic(width=1920, height=1080, truth=True)(iter(())), 12)]
    contenders: dict[str, Callable[[list[Frame]], object]] = {
        "overlay": lambda batch: list(Overlay()(iter(batch))),
        "numpy": lambda batch: [numpy_blend(frame) for frame in batch],
    }
    times_ms: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(frames + WARM_UP_FRAMES):
        for name, draw in contenders.items():
            batch = [copy_image(frame) for frame in labelled]
            began_s = time.process_time()
            draw(batch)
            if number >= WARM_UP_FRAMES:
                times_ms[name].append(1000 * (time.process_time() - began_s) / len(batch))
    facts["cpu_ms"] = {name: summary(values) for name, values in times_ms.items()}
    facts["ratio"] = round(facts["cpu_ms"]["numpy"]["p50"] / facts["cpu_ms"]["overlay"]["p50"], 1)
    facts["parts_ms"] = {name: summary(values) for name, values in measure_parts(labelled, rounds=frames).items()}
    table = figures_table("drawing at 1920x1080", "CPU-ms per frame", "median", "p99")
    for name, row in (facts["cpu_ms"] | facts["parts_ms"]).items():
        table.add_row(name, f"{row['p50']:.2f}", f"{row['p99']:.2f}")
    print_results(facts, [table], json_file)


def add_labels(frame: Frame) -> Frame:
    """Return the frame with its ground truth as labels of a network, at the size of a network."""
    assert frame.truth is not None
    labels = np.asarray(cv2.resize(frame.truth.labels, SIZE[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    semantic = Semantic(frame.truth.classes, EngineInfo("truth", "none", "exact", "none"), SIZE, label_map=labels)
    return replace(frame, semantic=semantic, truth=None)


def measure_parts(labelled: list[Frame], *, rounds: int) -> dict[str, list[float]]:
    """Return CPU-ms of `blend` on images of two sizes, and of the labels of scores, for each frame in each round."""
    times_ms: dict[str, list[float]] = {}
    for number in range(rounds + WARM_UP_FRAMES):
        frame = labelled[number % len(labelled)]
        assert frame.semantic is not None
        labels, colours = frame.semantic.labels, frame.semantic.classes.bgr
        half, large = soft_scores(frame.semantic), frame.image.copy()
        small, opacity = cv2.resize(large, (960, 540)), np.full(256, 0.5)
        parts: dict[str, Callable[[], object]] = {
            "labels": partial(upsampled_argmax, half, SIZE),
            "blend 960x540": partial(blend, np.asarray(small, np.uint8), labels, colours, opacity),
            "blend 1920x1080": partial(blend, large, labels, colours, opacity),
        }
        for name, part in parts.items():
            began_s = time.process_time()
            part()
            if number >= WARM_UP_FRAMES:
                times_ms.setdefault(name, []).append(1000 * (time.process_time() - began_s))
    return times_ms


def soft_scores(semantic: Semantic) -> Scores:
    """Return scores of half the size of the labels whose outlines are soft, as those of a network."""
    height, width = SIZE
    planes = [(semantic.labels == label).astype(np.float32) for label in range(len(semantic.classes))]
    return np.stack(
        [np.asarray(cv2.GaussianBlur(cv2.resize(plane, (width // 2, height // 2)), (0, 0), 1)) for plane in planes]
    )


def copy_image(frame: Frame) -> Frame:
    """Return the frame with a copy of its image, because the overlay draws in place."""
    return replace(frame, image=frame.image.copy())


def numpy_blend(frame: Frame) -> np.ndarray[Any, Any]:
    """Blend with palette indexing and floats, the common implementation."""
    assert frame.semantic is not None
    labels = cv2.resize(frame.semantic.labels, frame.image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(0.5 * frame.image + 0.5 * frame.semantic.classes.bgr[labels]).astype(np.uint8)


def summary(values: list[float]) -> dict[str, float]:
    """Return median and 99th percentile."""
    return {f"p{share}": round(float(np.percentile(values, share)), 3) for share in (50, 99)}


if __name__ == "__main__":
    run_command(main)
