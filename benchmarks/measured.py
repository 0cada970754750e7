"""When frames leave a contender of compare.py, at what CPU time, and outputs that note it for the pipeline."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import StreamSegError
from stream_seg.runtime.report import peak_rss_mib
from stream_seg.stages.base import STRICT, Frames, Traits
from stream_seg.stages.write import Write

WARM_UP_FRAMES = 10
"""Frames at the beginning that are not measured, or a quarter: while the first is finished, others are computed."""
FiguresFile = Annotated[Path, Field(description="file for the figures, JSON")]


class Marks:
    """The time and the CPU time of this process, all threads, at each frame that leaves it."""

    def __init__(self) -> None:
        self._times = list[tuple[float, float]]()

    def add(self) -> None:
        """Note that a frame leaves now."""
        self._times.append((time.monotonic(), time.process_time()))

    def write(self, path: Path) -> None:
        """Write the figures from the end of the warm-up to the last frame. Raises StreamSegError for one frame."""
        if len(self._times) < 2:
            raise StreamSegError(f"{len(self._times)} frames; at least 2 are required to measure a rate")
        measured = self._times[min(WARM_UP_FRAMES, len(self._times) // 4) :]
        (began_s, began_cpu_s), (ended_s, ended_cpu_s) = measured[0], measured[-1]
        intervals = len(measured) - 1
        figures = {
            "frames": len(self._times),
            "fps": intervals / (ended_s - began_s),
            "cpu_ms": 1000 * (ended_cpu_s - began_cpu_s) / intervals,
            "peak_rss_mib": peak_rss_mib(),
            "first_frame_at_s": self._times[0][0],
        }
        path.write_text(json.dumps(figures), encoding="utf-8")


@dataclass(config=STRICT)
class Encoded(Write):
    """`write`, with figures."""

    figures: FiguresFile = Path("figures.json")

    def __call__(self, frames: Frames) -> Frames:
        marks = Marks()
        for frame in super().__call__(frames):
            marks.add()
            yield frame
        marks.write(self.figures)


@dataclass(config=STRICT)
class Dropped:
    """An output that takes each image and drops it, with figures."""

    traits = Traits(role="output", images="drawn")

    figures: FiguresFile = Path("figures.json")

    def __call__(self, frames: Frames) -> Frames:
        marks = Marks()
        for frame in frames:
            _ = frame.image  # a pending image is converted now
            marks.add()
            yield frame
        marks.write(self.figures)
