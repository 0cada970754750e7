"""What a run was like: OUT/log.jsonl, a line of figures now and then, and OUT/curves.png drawn from it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from stream_seg.files import replace_file, writing

Line = dict[str, Any]


CURVES = {"loss": "loss", "learning_rate": "learning rate", "miou": "mIoU, share"}


class History:
    """The lines so far, in memory and on disk. One that goes on forgets what came after the step it goes on from."""

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path, self.folder = folder / "log.jsonl", folder
        self.lines = [line for line in _read(self.path) if line["step"] <= step] if step else []
        if self.lines:
            replace_file(self.path, "".join(f"{json.dumps(line)}\n" for line in self.lines).encode())
        else:
            with writing(self.path):
                self.path.unlink(missing_ok=True)

    def add(self, line: Line) -> None:
        """Append a line. Raises OutputError."""
        self.lines.append(line)
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")

    def draw(self) -> None:
        """Draw loss, learning rate and mIoU over the steps into curves.png. Raises OutputError."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 7), layout="constrained")
        for axes, (key, name) in zip(figure.subplots(len(CURVES), 1, sharex=True), CURVES.items(), strict=True):
            points = [(line["step"], line[key]) for line in self.lines if line.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 100 else "")
            axes.set_ylabel(name)
            axes.grid(alpha=0.3)
        axes.set_xlabel("step")
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=110)
        replace_file(self.folder / "curves.png", drawn.getvalue())


def _read(path: Path) -> list[Line]:
    """The lines of a log; a last one that a kill cut off is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
