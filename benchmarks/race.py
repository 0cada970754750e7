"""One run of a contender of compare.py, in a new process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from processes import run_python, run_stream_seg

from stream_seg.config.overrides import default_document, with_input

FOLDER = Path(__file__).parent
OURS = ("ours", "ours_default")
BASELINES = ("decent", "naive")
BASELINE_FRAMES = 10
"""Frames of a baseline, at most: it takes four to six times as long as the others."""


class Row(NamedTuple):
    """The size of the input, WIDTHxHEIGHT, and whether the frames are encoded."""

    size: str
    encoded: bool

    @property
    def title(self) -> str:
        """The name of the row."""
        return f"{self.size} to mp4" if self.encoded else f"{self.size}, not encoded"

    @property
    def experts(self) -> tuple[str, ...]:
        """The variants of the expert's loop, of which the fastest counts."""
        return ("expert", "expert_area") if int(self.size.partition("x")[2]) >= 1080 else ("expert",)


class Run(NamedTuple):
    """Figures of a run: all frames, those of the frames after the warm-up, and the time from start to first frame."""

    frames: int
    fps: float
    cpu_ms: float
    peak_rss_mib: float
    first_frame_s: float


def run_contender(name: str, clip: Path, *, frames: int, encoded: bool) -> Run:
    """Run a contender on the first frames of a clip, in a new process. Raises StreamSegError if it fails."""
    with TemporaryDirectory() as folder:
        figures, output = Path(folder) / "figures.json", Path(folder) / "out.mp4" if encoded else None
        began_s = time.monotonic()  # the same clock in all processes
        if name in OURS:
            graph = Path(folder) / "graph.yaml"
            graph.write_text(json.dumps(make_graph(name, clip, frames, figures, output)), encoding="utf-8")
            run_stream_seg("run", "--quiet", "--config", str(graph))
        else:
            frames = min(frames, BASELINE_FRAMES) if name in BASELINES else frames
            _run_contender_file(name, clip, figures, frames, *(["--output", str(output)] if output else []))
        run = json.loads(figures.read_text(encoding="utf-8"))
    return Run(first_frame_s=run.pop("first_frame_at_s") - began_s, **run)


def run_measurement(name: str, clip: Path, *, frames: int) -> dict[str, float]:
    """Return the figures of `limits` or `agreement` of contender.py. Raises StreamSegError if it fails."""
    with TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        _run_contender_file(name, clip, figures, frames)
        measured: dict[str, float] = json.loads(figures.read_text(encoding="utf-8"))
    return measured


def _run_contender_file(name: str, clip: Path, figures: Path, frames: int, *options: str) -> None:
    run_python(str(FOLDER / "contender.py"), name, str(clip), str(figures), "--frames", str(frames), *options)


def make_graph(name: str, clip: Path, frames: int, figures: Path, output: Path | None) -> dict[str, Any]:
    """Return the document of the default graph, or of one that does the work of the expert's loop."""
    document = with_input(default_document(), str(clip))
    stages = document["stages"]
    stages["capture"]["frames"] = frames
    if name == "ours":
        del stages["smooth"]
        stages["segment"]["every"] = 1
        stages["overlay"] |= {"input": "segment", "legend": False, "hud": False}
    stages["output"] = {"stage": f"{FOLDER / 'measured.py'}:{'Encoded' if output else 'Dropped'}", "input": "overlay"}
    stages["output"] |= {"figures": str(figures), **({"path": str(output)} if output else {})}
    return document
