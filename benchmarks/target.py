"""Whether `target_ms` holds the age of live frames while other programs take half of the machine, and what comes after.

A camera of 30 frames/s, the default stages, an output. After `calm` seconds a busy loop runs for every core, for `busy`
seconds. Twice: with the target, and without as the control. A second counts as late where the 95th percentile of the
age at the output is over the target; the first three seconds of the load are left out.
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
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from surroundings import command, figures, finish, machine, preset

from stream_seg.config.graph_file import Config, Node
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from stream_seg.stages.synthetic import Synthetic

RATE = 30
SETTLING_S, RETURN_S = 3, 5
PICTURES = 60


@dataclass
class Camera:
    """Gives drawn pictures again and again, forwards and backwards, in real time."""

    pictures: list[Frame]
    seconds: float
    stream: str = "synth"

    def __call__(self, _: Frames) -> Frames:
        began_s, turn = time.monotonic(), [*self.pictures, *self.pictures[-2:0:-1]]
        for seq in range(int(self.seconds * RATE)):
            time.sleep(max(0.0, began_s + seq / RATE - time.monotonic()))
            drawn = turn[seq % len(turn)]
            yield replace(drawn, seq=seq, pts=seq, image=drawn.image.copy(), captured_ns=time.monotonic_ns())


@dataclass
class Log:
    """An output that notes the second, the age in ms and the rung of every frame; it begins with the first."""

    began_s: float = 0.0
    seen: list[tuple[float, float, int]] = field(default_factory=list)

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            now_s = time.monotonic()
            self.began_s = self.began_s or now_s
            rung = frame.temporal.rung if frame.temporal is not None else 0
            self.seen.append((now_s - self.began_s, 1000 * now_s - frame.captured_ns / 1e6, rung))
            yield frame


def main(
    target_ms: Annotated[float, typer.Option(help="The target.")] = 50.0,
    calm: Annotated[float, typer.Option(min=1, help="Seconds before the load.")] = 4.0,
    busy: Annotated[float, typer.Option(min=1, help="Seconds of load.")] = 8.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """Whether target_ms holds the age of frames while the machine is halved."""
    facts: dict[str, Any] = {"machine": machine(), "target_ms": target_ms, "calm_s": calm, "busy_s": busy}
    pictures = list(islice(Synthetic(width=640, height=360)(iter(())), PICTURES))
    seconds = calm + busy + RETURN_S + 1
    for name, target in (("control", None), ("target", target_ms)):
        log = measured(Camera(pictures, seconds), target_ms=target, calm=calm, busy=busy)
        facts[name] = summary(log, target_ms=target_ms, calm=calm, busy=busy)
    table = figures(f"target {target_ms:.0f} ms, {busy:.0f} s of a busy loop per core", "segment", "control", "target")
    for key, value in facts["target"].items():
        table.add_row(key, str(facts["control"][key]), str(value))
    finish(facts, [table], json_file)


def measured(camera: Camera, *, target_ms: float | None, calm: float, busy: float) -> Log:
    """One run; the load begins `calm` seconds after the first frame."""
    log, stages = Log(), preset()
    stages["segment"] = replace(stages["segment"], target_ms=target_ms)  # type: ignore[type-var]
    nodes = [Node("source", "synthetic", (), None, camera)]
    for kind, stage in stages.items():
        nodes.append(Node(kind, kind, (nodes[-1].name,), None, stage))
    nodes.append(Node("sink", "write", (nodes[-1].name,), None, log))
    with Graph(Config(tuple(nodes), "latest", None), live=True) as graph:
        while not log.seen and not graph.wait(0.01):
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
    """A busy loop for every core, each a program of its own."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def summary(log: Log, *, target_ms: float, calm: float, busy: float) -> dict[str, Any]:
    """Median and 95th percentile of age before, under and after the load; shares; changes; the way back."""
    at, age, rung = (np.array(column) for column in zip(*log.seen, strict=True))
    loaded, after = (at >= calm) & (at < calm + busy), at >= calm + busy
    starts = np.arange(calm + SETTLING_S, calm + busy - 1 + 1e-6, 0.1)  # windows of a second, ten a second
    p95 = [float(np.percentile(taken, 95)) for s in starts if len(taken := age[(at >= s) & (at < s + 1)])]
    back = at[after & (rung == 0)]
    spans = {"calm": (at > min(1, calm / 2)) & (at < calm), "busy": loaded, "after": after}
    return {
        **{f"{name}_p95_ms": round(float(np.percentile(age[span], 95)), 1) for name, span in spans.items()},
        **{f"{name}_fps": round(float(span.sum() / np.ptp(at[span])), 1) for name, span in spans.items()},
        "windows_held": round(float(np.mean([value <= target_ms for value in p95])), 3),
        "lowest_rung": int(rung.max()),
        "changes": int(np.count_nonzero(np.diff(rung))),
        "back_after_s": round(float(back[0]) - calm - busy, 2) if len(back) else None,
    }


if __name__ == "__main__":
    command(main)
