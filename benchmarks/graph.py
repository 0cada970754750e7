"""What the graph itself costs: time between the stages, and CPU.

A camera of 30 frames/s at 1280x720, three stages, an output, each in a thread of its own, frames by reference; with
stages that do nothing, and with those of the default preset. The overhead of a frame is its age at the output less the
time that stages worked on it. The CPU of the graph is measured twice: as all that the stages that do nothing need,
and as what the real stages need more in the graph than one after the other in a plain loop of the same pace.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from stand_ins import WARM_UP_FRAMES, Memory, Stage, composed, graphed, nothing
from surroundings import default_filters, describe_machine, figures_table, print_results, run_command

from stream_seg.frame import Frame
from stream_seg.stages.synthetic import Synthetic

RATE = 30.0


def main(
    frames: Annotated[int, typer.Option(min=2, help="Frames measured per round.")] = 90,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in turns.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """What the graph itself costs: milliseconds between the stages, and CPU-ms per frame."""
    facts: dict[str, Any] = {"machine": describe_machine(), "frames": frames, "rounds": rounds}
    drive = Synthetic(width=1280, height=720)
    pictures = list(islice(drive(iter(())), frames + WARM_UP_FRAMES))
    idle = dict.fromkeys(default_filters(), nothing)
    overhead_ms: dict[str, list[float]] = {"stand_ins": [], "real": []}
    cpu_ms: dict[str, list[float]] = {"stand_ins": [], "stand_ins_loop": [], "real": [], "real_loop": []}
    for _ in range(rounds):
        for name, stages in (("stand_ins", idle), ("real", default_filters())):
            waited_ms, in_graph_ms, in_loop_ms = costs(pictures, stages)
            overhead_ms[name] += waited_ms
            cpu_ms[name].append(in_graph_ms)
            cpu_ms[f"{name}_loop"].append(in_loop_ms)
    facts["overhead_ms"] = {
        name: {f"p{share}": round(float(np.percentile(values, share)), 3) for share in (50, 99)}
        for name, values in overhead_ms.items()
    }
    facts["cpu_ms"] = {name: round(median(values), 3) for name, values in cpu_ms.items()}
    more_ms = {
        name: median(a - b for a, b in zip(cpu_ms[name], cpu_ms[f"{name}_loop"], strict=True)) for name in overhead_ms
    }
    facts["graph_cpu_ms"] = {name: round(value, 3) for name, value in more_ms.items()}
    facts["graph_share"] = {name: round(value / median(cpu_ms["real"]), 4) for name, value in more_ms.items()}
    print_results(facts, [table(facts)], json_file)


def costs(pictures: list[Frame], stages: Mapping[str, Stage]) -> tuple[list[float], float, float]:
    """Of one round: each frame's overhead in ms, CPU-ms per frame in the graph, and in a loop without it."""
    clock, in_graph_ms = graphed(Memory(pictures, RATE), stages, nothing)
    in_loop_ms = composed(Memory(pictures, RATE), stages, nothing).read_ms()
    return clock.overhead_ms, in_graph_ms, in_loop_ms


def table(facts: dict[str, Any]) -> Table:
    """The figures for a reader."""
    title = (
        f"the graph's own cost at {RATE:.0f} frames/s, 1280x720, {facts['rounds']} rounds of {facts['frames']} frames"
    )
    shown = figures_table(title, "CPU-ms per frame", "graph", "loop", "more", "of real", "overhead p50 ms", "p99 ms")
    for name, said in (("stand_ins", "stages that do nothing"), ("real", "segment, smooth, overlay")):
        cpu_ms, overhead_ms = facts["cpu_ms"], facts["overhead_ms"][name]
        shown.add_row(
            said,
            *(f"{cpu_ms[name]:.2f}", f"{cpu_ms[f'{name}_loop']:.2f}", f"{facts['graph_cpu_ms'][name]:.2f}"),
            *(f"{facts['graph_share'][name]:.1%}", f"{overhead_ms['p50']:.2f}", f"{overhead_ms['p99']:.2f}"),
        )
    return shown


if __name__ == "__main__":
    run_command(main)
