"""Measure frames per second, memory and the time to the first frame, each in a new process.

* `file_to_mp4`: `stream-seg run CLIP out.mp4` at 960x540. Frames per second are from first to last frame written.
* `without_encode`: a 1920x1080 file through the default graph into an output that does nothing, with its peak RSS.
* `start`: `stream-seg run` of one frame of the 1080p clip. `one_frame_s` is from the start of the process to its exit:
  imports, opening the file and the network, the frame, finishing the mp4. It is an upper bound of the time to the first
  frame. `first_frame_s` of the report begins at the start of the graph. The page cache is warm and numba's cache is
  filled: the very first run on a machine takes longer.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.table import Table
from surroundings import (
    JsonFile,
    default_filters,
    describe_machine,
    figures_table,
    open_clip,
    print_results,
    run_command,
    run_report,
)

from stream_seg.errors import StreamSegError

STARTS = 5


def main(
    frames: Annotated[int, typer.Option(min=2, help="Frames of each synthetic clip.")] = 300,
    source: Annotated[Path | None, typer.Option("--input", help="A video instead of both synthetic clips.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure frames per second, memory and the time to the first frame, each in a new process."""
    facts: dict[str, Any] = {"machine": describe_machine(), "input": str(source) if source else "synth://road"}
    with TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.mp4")
        with open_clip(source, size="960x540", frames=frames) as path:
            facts["file_to_mp4"] = select_figures(run_report("run", str(path), out, "--overwrite"))
        with open_clip(source, size="1920x1080", frames=frames) as path:
            facts["without_encode"] = call_in_process(run_without_encoder, path)
            facts["start"] = measure_start(path, out)
    print_results(facts, [make_table(facts)], json_file)


def select_figures(report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a report that are compared."""
    keys = ("fps", "seconds", "cpu_ms_per_frame", "peak_rss_mib", "engine")
    return {"frames": report["frames"]["written"], **{key: report[key] for key in keys}}


def run_without_encoder(path: Path) -> dict[str, Any]:
    """Run a file through the default graph into an output that does nothing, and return its figures."""
    from stand_ins import FunctionStage, pass_through

    from stream_seg.config.config import Config, Node
    from stream_seg.runtime.graph import Graph
    from stream_seg.runtime.report import Report
    from stream_seg.stages.base import Traits
    from stream_seg.stages.capture import Capture

    nodes = [Node("capture", "capture", (), None, Capture(str(path)))]
    for kind, stage in default_filters().items():
        nodes.append(Node(kind, kind, (nodes[-1].name,), None, stage))
    nodes.append(Node("output", "output", (nodes[-1].name,), None, FunctionStage(pass_through, Traits(role="output"))))
    with Graph(Config(tuple(nodes), "every", None)) as graph:
        graph.wait()
        seconds = (time.monotonic_ns() - graph.started_ns) / 1e9
    if graph.error is not None:
        raise graph.error
    return select_figures(Report.of(graph, seconds=seconds).to_dict())


def call_in_process(function: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """Call a function in a new process, which shares no memory with this one, and return its result."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, path))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError as error:
        raise StreamSegError(f"{path}: the process that ran it died") from error
    finally:
        process.join()
    if isinstance(result, str):
        raise StreamSegError(result)
    return dict(result)


def _send_result(sender: Connection, function: Callable[[Path], dict[str, Any]], path: Path) -> None:
    """Send the result of a function, or the message of its error."""
    try:
        sender.send(function(path))
    except StreamSegError as error:
        sender.send(str(error))


def measure_start(path: Path, out: str) -> dict[str, float]:
    """Return the medians over runs of one frame, in seconds."""
    process_s, graph_s = [], []
    for _ in range(STARTS):
        began_s = time.monotonic()
        report = run_report("run", str(path), out, "--overwrite", "--set", "capture.frames=1")
        process_s.append(time.monotonic() - began_s)
        graph_s.append(report["first_frame_s"])
    return {"one_frame_s": round(median(process_s), 3), "first_frame_s": round(median(graph_s), 3), "runs": STARTS}


def make_table(facts: dict[str, Any]) -> Table:
    """Return the figures as a table."""
    engine = facts["file_to_mp4"]["engine"]
    title = f"{facts['input']}, {engine['network']}, {engine['backend']} {engine['precision']}"
    table = figures_table(title, "each in a new process", "frames", "fps", "CPU-ms per frame", "peak RSS MiB", "s")
    for key, label in (("file_to_mp4", "960x540 file to mp4"), ("without_encode", "1920x1080 file, no encoder")):
        run = facts[key]
        numbers = f"{run['fps']:.1f}", f"{run['cpu_ms_per_frame']:.1f}", f"{run['peak_rss_mib']:.0f}"
        table.add_row(label, str(run["frames"]), *numbers, "")
    table.add_row("start of process to exit, one frame", "1", "", "", "", f"{facts['start']['one_frame_s']:.2f}")
    table.add_row("start of graph to the frame", "1", "", "", "", f"{facts['start']['first_frame_s']:.2f}")
    return table


if __name__ == "__main__":
    run_command(main)
