"""Measure the cost of the graph itself: time between the stages, and CPU time.

A camera of 30 frames/s at 1280x720, three stages and an output, each in its own thread, frames passed by reference;
once with stages that do nothing, once with those of the default graph. The overhead of a frame is its age at the output
minus the time that stages worked on it. The CPU time of the graph is that of a run in the graph minus that of the same
stages in a plain loop at the same pace.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from stand_ins import WARM_UP_FRAMES, MemorySource, Stage, pass_through, run_graph, run_loop
from surroundings import JsonFile, default_filters, describe_machine, figures_table, print_results, run_command

from stream_seg.frame import Frame
from stream_seg.stages.synthetic import Synthetic

RATE = 30.0


def main(
    frames: Annotated[int, typer.Option(min=2, help="Frames measured per round.")] = 90,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in turns.")] = 5,
    json_file: JsonFile = None,
) -> None:
    """Measure the cost of the graph itself: milliseconds between the stages, and CPU-ms per frame."""
    facts: dict[str, Any] = {"machine": describe_machine(), "frames": frames, "rounds": rounds}
    drive = list(islice(Synthetic(width=1280, height=720)(iter(())), frames + WARM_UP_FRAMES))
    idle = dict.fromkeys(default_filters(), pass_through)
    overhead_ms: dict[str, list[float]] = {"stand_ins": [], "real": []}
    cpu_ms: dict[str, list[float]] = {"stand_ins": [], "stand_ins_loop": [], "real": [], "real_loop": []}
    for _ in range(rounds):
        for name, stages in (("stand_ins", idle), ("real", default_filters())):
            waits_ms, graph_ms, loop_ms = measure_round(drive, stages)
            overhead_ms[name] += waits_ms
            cpu_ms[name].append(graph_ms)
            cpu_ms[f"{name}_loop"].append(loop_ms)
    facts["overhead_ms"] = {
        name: {f"p{share}": round(float(np.percentile(values, share)), 3) for share in (50, 99)}
        for name, values in overhead_ms.items()
    }
    facts["cpu_ms"] = {name: round(median(values), 3) for name, values in cpu_ms.items()}
    extra_ms = {
        name: median(a - b for a, b in zip(cpu_ms[name], cpu_ms[f"{name}_loop"], strict=True)) for name in overhead_ms
    }
    facts["graph_cpu_ms"] = {name: round(value, 3) for name, value in extra_ms.items()}
    facts["graph_share"] = {name: round(value / median(cpu_ms["real"]), 4) for name, value in extra_ms.items()}
    print_results(facts, [make_table(facts)], json_file)


def measure_round(drive: list[Frame], stages: Mapping[str, Stage]) -> tuple[list[float], float, float]:
    """Return each frame's overhead in ms, the CPU-ms per frame in the graph, and the same in a plain loop."""
    clock, graph_ms = run_graph(MemorySource(drive, RATE), stages, pass_through)
    loop_ms = run_loop(MemorySource(drive, RATE), stages, pass_through).read_ms()
    return clock.overhead_ms, graph_ms, loop_ms


def make_table(facts: dict[str, Any]) -> Table:
    """Return the figures as a table."""
    title = f"cost of the graph at {RATE:.0f} frames/s, 1280x720, {facts['rounds']} rounds of {facts['frames']} frames"
    table = figures_table(title, "CPU-ms per frame", "graph", "loop", "more", "of real", "overhead p50 ms", "p99 ms")
    for name, label in (("stand_ins", "stages that do nothing"), ("real", "segment, smooth, overlay")):
        cpu_ms, overhead_ms = facts["cpu_ms"], facts["overhead_ms"][name]
        table.add_row(
            label,
            *(f"{cpu_ms[name]:.2f}", f"{cpu_ms[f'{name}_loop']:.2f}", f"{facts['graph_cpu_ms'][name]:.2f}"),
            *(f"{facts['graph_share'][name]:.1%}", f"{overhead_ms['p50']:.2f}", f"{overhead_ms['p99']:.2f}"),
        )
    return table


if __name__ == "__main__":
    run_command(main)
