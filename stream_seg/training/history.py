"""The log of a run: OUT/log.jsonl, a line of figures every few steps, and its plot OUT/curves.png."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from stream_seg.files import map_write_errors, replace_file

Line = dict[str, Any]
CURVES = {"loss": "loss", "learning_rate": "learning rate", "miou": "mIoU, share"}


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

    def add(self, line: Line) -> None:
        """Append a line. Raises OutputError."""
        self.lines.append(line)
        with map_write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")

    def plot(self) -> None:
        """Plot loss, learning rate and mIoU over the steps into curves.png. Raises OutputError."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 7), layout="constrained")
        for axes, (key, name) in zip(figure.subplots(len(CURVES), 1, sharex=True), CURVES.items(), strict=True):
            points = [(line["step"], line[key]) for line in self.lines if line.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 100 else "")
            axes.set_ylabel(name)
            axes.grid(alpha=0.3)
        axes.set_xlabel("step")
        png = io.BytesIO()
        figure.savefig(png, dpi=110)
        replace_file(self.folder / "curves.png", png.getvalue())


def _read_lines(path: Path) -> list[Line]:
    """Read the lines of a log, without one that a kill truncated."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
