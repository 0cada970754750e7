"""The record of a run: OUT/log.jsonl, a line of figures every few steps, its plot curves.png, and samples.png."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stream_seg.datasets.labelled import Pairs
from stream_seg.files.writing import map_write_errors, replace_file
from stream_seg.types import VOID, Classes
from stream_seg.zoo.weights.input_spec import Predict

CURVES = {"loss": "loss", "learning_rate": "learning rate", "miou": "mIoU, share"}
SAMPLES, WIDTH, MAX_HEIGHT = 4, 320, 640
"""Images in samples.png, and the width and the largest height of each."""


class History:
    """The lines of a run, in memory and on disk. A resumed run drops those after the step it resumes from."""

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path, self.folder = folder / "log.jsonl", folder
        self.lines = [line for line in _read_lines(self.path) if line["step"] <= step] if step else []
        if self.lines:
            replace_file(self.path, "".join(f"{json.dumps(line)}\n" for line in self.lines).encode())
        else:
            with map_write_errors(self.path):
                self.path.unlink(missing_ok=True)

    def add(self, line: dict[str, Any]) -> None:
        """Append a line. Raises OutputError."""
        self.lines.append(line)
        with map_write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")

    def plot(self) -> None:
        """Plot loss, learning rate and mIoU over the steps into curves.png. Raises OutputError."""
        from matplotlib.figure import Figure

        figure, png = Figure(figsize=(8, 7), layout="constrained"), io.BytesIO()
        for axes, (key, name) in zip(figure.subplots(len(CURVES), 1, sharex=True), CURVES.items(), strict=True):
            points = [(line["step"], line[key]) for line in self.lines if line.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 100 else "")
            axes.set_ylabel(name)
            axes.grid(alpha=0.3)
        axes.set_xlabel("step")
        figure.savefig(png, dpi=110)
        replace_file(self.folder / "curves.png", png.getvalue())


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, without one that a kill truncated."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def draw_samples(path: Path, predict: Predict, pairs: Pairs, classes: Classes) -> None:
    """Write a PNG of some images, a row each: image, truth, prediction (VOID as in the truth). Raises OutputError."""
    rows = []
    for index in np.linspace(0, len(pairs) - 1, min(SAMPLES, len(pairs))).astype(int):
        image, truth = pairs[int(index)]
        labels = np.where(truth == VOID, VOID, predict(image, truth.shape))
        height = min(MAX_HEIGHT, max(1, round(WIDTH * truth.shape[0] / truth.shape[1])))
        row = (image, classes.bgr[truth], classes.bgr[labels])
        rows.append(np.hstack([cv2.resize(part, (WIDTH, height), interpolation=cv2.INTER_AREA) for part in row]))
    replace_file(path, cv2.imencode(".png", np.vstack(rows))[1].tobytes())
