"""What a run did: the table at its end, and the same as JSON.

The keys are stable:

* `frames.captured`: pictures of all sources, also of removed ones, with those that a source could not deliver
* `frames.cards`: frames that sources drew in the place of a picture; what counts frames counts them too
* `frames.by_output.NAME`: frames that an output dealt with; 0 for one that failed or did not finish
* `frames.written`: pictures, of the output with the fewest
* `frames.dropped.REASON`: of all sources and links together; a fan-out may drop a frame more than once
* `seconds` from start to end; `fps` from the first picture written to the last
* `stages.NAME.{frames,p50_ms,p95_ms,p99_ms}`: time that a stage works on a frame
* `age_ms.{p50,p99}`: from the capture of a frame to the end of its output
* `overhead_ms.{p50,p99}`: the part of the age in which no stage worked on the frame
* `first_frame_s`: from the start of the graph to the first picture written
* `cpu_ms_per_frame`: of the whole process, from the first picture written on
* `peak_rss_mib`, `policy`
* `engine.{network,backend,precision,device}`: null where nothing segments
* `error`: null after a clean run

Percentiles are of the last 65,536 frames.
"""

from __future__ import annotations

import json
import resource
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stream_seg.files import replace_file
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.histogram import Samples


def peak_rss_mib() -> float:
    """The largest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before it became this program
        return float(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def report(graph: Graph, *, seconds: float) -> dict[str, Any]:
    """The facts of a run that took `seconds`, under the keys above."""
    sources = [*(task.left() for task in graph.tasks if task.is_source), *graph.removed]
    sinks = [task for task in graph.tasks if task.is_sink]
    lost = {task.node.name for task in sinks if task.failed or task in graph.hanging()}
    dropped: Counter[str] = Counter()
    for left in sources:
        dropped.update(left.source.missed)
    for link in graph.books:
        dropped.update(link.account().dropped)
    slowest = min(sinks, key=lambda task: task.pictures, default=None)
    age, overhead = (slowest.age_ms, slowest.overhead_ms) if slowest else (Samples(), Samples())
    first_ns = slowest.first_ns if slowest else None
    cpu_ms = slowest.cpu_ms() if slowest else None
    engines = [engine for engine in graph.engines().values() if engine is not None]
    return {
        "frames": {
            "captured": sum(left.pictures + left.source.missed.total() for left in sources),
            "cards": sum(left.cards for left in sources),
            "written": min((0 if task.node.name in lost else task.pictures for task in sinks), default=0),
            "by_output": {task.node.name: 0 if task.node.name in lost else task.yielded for task in sinks},
            "dropped": dict(dropped),
        },
        "seconds": round(seconds, 3),
        "fps": round(slowest.mean_fps() if slowest else 0.0, 2),
        "stages": {task.node.name: _stage(task.yielded, task.duration_ms) for task in graph.tasks},
        "age_ms": {"p50": _ms(age, 50), "p99": _ms(age, 99)},
        "overhead_ms": {"p50": _ms(overhead, 50), "p99": _ms(overhead, 99)},
        "first_frame_s": round((first_ns - graph.started_ns) / 1e9, 3) if first_ns is not None else None,
        "peak_rss_mib": round(peak_rss_mib(), 1),
        "cpu_ms_per_frame": round(cpu_ms, 2) if cpu_ms is not None else None,
        "engine": asdict(engines[0]) if engines else None,
        "policy": graph.policy,
        "error": str(graph.error) if graph.error else None,
    }


def write_json(facts: dict[str, Any], path: Path) -> None:
    """Write facts as JSON, in one step. Raises OutputError where that is not possible."""
    replace_file(path, (json.dumps(facts, indent=2) + "\n").encode())


def show(facts: dict[str, Any], console: Console) -> None:
    """Print the facts as the table that ends a run."""
    frames = facts["frames"]
    drops = {reason: number for reason, number in frames["dropped"].items() if number}
    lost = ", ".join(f"{number} {reason}" for reason, number in drops.items()) or "none"
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    cards = f", {frames['cards']} cards in the place of pictures" if frames["cards"] else ""
    table.add_row("frames", f"{frames['captured']} in, {frames['written']} out, dropped: {lost}{cards}")
    table.add_row("speed", f"{facts['fps']:.1f} fps end to end, {facts['seconds']:.1f} s in all")
    table.add_row(
        "frame age",
        f"{facts['age_ms']['p50']:.0f} ms median, {facts['age_ms']['p99']:.0f} ms p99, policy {facts['policy']}",
    )
    engine = facts["engine"]
    if engine:
        table.add_row("engine", f"{engine['network']}, {engine['backend']} {engine['precision']} on {engine['device']}")
    table.add_row("memory", f"{facts['peak_rss_mib']:.0f} MiB peak")
    stages = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    stages.add_column("stage")
    for heading in ("frames", "p50 ms", "p95 ms", "p99 ms"):
        stages.add_column(heading, justify="right")
    for name, stage in facts["stages"].items():
        stages.add_row(name, str(stage["frames"]), *(f"{stage[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")))
    console.print(table)
    console.print()
    console.print(stages)


def _ms(samples: Samples, share: float) -> float:
    return round(samples.percentile(share), 3)


def _stage(frames: int, samples: Samples) -> dict[str, float]:
    return {"frames": frames, "p50_ms": _ms(samples, 50), "p95_ms": _ms(samples, 95), "p99_ms": _ms(samples, 99)}
