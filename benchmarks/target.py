"""Measure the age of live frames with `target_ms` while other programs take half of the machine, and afterwards.

A camera of 30 frames/s, the default stages, an output. After `calm` seconds a busy loop runs for every core, for `busy`
seconds; once with the target, once without as control. A second is late if the 95th percentile of the age at the output
is above the target; the first three seconds of the load are not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated, Any

import numpy as np
import typer
from surroundings import JsonFile, default_filters, describe_machine, figures_table, print_results, run_command

from stream_seg.config.config import Config, Node
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames, Traits
from stream_seg.stages.synthetic import Synthetic

RATE = 30
SETTLING_S, RETURN_S = 3, 5
FRAMES = 60


@dataclass
class Camera:
    """A source that repeats synthetic frames in real time, forwards and backwards."""

    traits = Traits(role="source")
    live = True

    frames: list[Frame]
    seconds: float
    stream: str = "synth"

    def __call__(self, _: Frames) -> Frames:
        began_s, cycle = time.monotonic(), [*self.frames, *self.frames[-2:0:-1]]
        for seq in range(int(self.seconds * RATE)):
            time.sleep(max(0.0, began_s + seq / RATE - time.monotonic()))
            frame = cycle[seq % len(cycle)]
            yield replace(frame, seq=seq, pts=seq, image=frame.image.copy(), captured_ns=time.monotonic_ns())


@dataclass
class Log:
    """An output that records second, age in ms and quality level of every frame, from the first frame on."""

    traits = Traits(role="output")

    began_s: float = 0.0
    records: list[tuple[float, float, int]] = field(default_factory=list)

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            now_s = time.monotonic()
            self.began_s = self.began_s or now_s
            level = frame.temporal.quality_level if frame.temporal is not None else 0
            self.records.append((now_s - self.began_s, 1000 * now_s - frame.captured_ns / 1e6, level))
            yield frame


def main(
    target_ms: Annotated[float, typer.Option(help="The target.")] = 50.0,
    calm: Annotated[float, typer.Option(min=1, help="Seconds before the load.")] = 4.0,
    busy: Annotated[float, typer.Option(min=1, help="Seconds of load.")] = 8.0,
    json_file: JsonFile = None,
) -> None:
    """Measure the age of frames with target_ms on half of the machine."""
    facts: dict[str, Any] = {"machine": describe_machine(), "target_ms": target_ms, "calm_s": calm, "busy_s": busy}
    frames = list(islice(Synthetic(width=640, height=360)(iter(())), FRAMES))
    seconds = calm + busy + RETURN_S + 1
    for name, target in (("control", None), ("target", target_ms)):
        log = measure_run(Camera(frames, seconds), target_ms=target, calm=calm, busy=busy)
        facts[name] = summary(log, target_ms=target_ms, calm=calm, busy=busy)
    table = figures_table(
        f"target {target_ms:.0f} ms, {busy:.0f} s of a busy loop per core", "segment", "control", "target"
    )
    for key, value in facts["target"].items():
        table.add_row(key, str(facts["control"][key]), str(value))
    print_results(facts, [table], json_file)


def measure_run(camera: Camera, *, target_ms: float | None, calm: float, busy: float) -> Log:
    """Run the graph; the load begins `calm` seconds after the first frame."""
    log, stages = Log(), default_filters()
    stages["segment"] = replace(stages["segment"], target_ms=target_ms)  # type: ignore[type-var]
    nodes = [Node("source", "synthetic", (), None, camera)]
    for kind, stage in stages.items():
        nodes.append(Node(kind, kind, (nodes[-1].name,), None, stage))
    nodes.append(Node("sink", "write", (nodes[-1].name,), None, log))
    with Graph(Config(tuple(nodes), "latest", None)) as graph:
        while not log.records and not graph.wait(0.01):
            pass
        graph.wait(calm)
        with load():
            graph.wait(busy)
        graph.wait()
    if graph.error is not None:
        raise graph.error
    return log


@contextmanager
def load() -> Iterator[None]:
    """Run a busy loop for every core, each in a process."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def summary(log: Log, *, target_ms: float, calm: float, busy: float) -> dict[str, Any]:
    """Return 95th percentile of the age and frame rate before, under and after the load, and quality changes."""
    at, age, level = (np.array(column) for column in zip(*log.records, strict=True))
    loaded, after = (at >= calm) & (at < calm + busy), at >= calm + busy
    starts = np.arange(calm + SETTLING_S, calm + busy - 1 + 1e-6, 0.1)  # windows of a second, ten a second
    p95 = [float(np.percentile(ages, 95)) for s in starts if len(ages := age[(at >= s) & (at < s + 1)])]
    back = at[after & (level == 0)]
    spans = {"calm": (at > min(1, calm / 2)) & (at < calm), "busy": loaded, "after": after}
    return {
        **{f"{name}_p95_ms": round(float(np.percentile(age[span], 95)), 1) for name, span in spans.items()},
        **{f"{name}_fps": round(float(span.sum() / np.ptp(at[span])), 1) for name, span in spans.items()},
        "windows_held": round(float(np.mean([value <= target_ms for value in p95])), 3),
        "lowest_quality_level": int(level.max()),
        "changes": int(np.count_nonzero(np.diff(level))),
        "back_after_s": round(float(back[0]) - calm - busy, 2) if len(back) else None,
    }


if __name__ == "__main__":
    run_command(main)
