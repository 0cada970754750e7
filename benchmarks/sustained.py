"""Frames per second, memory and the time to the first frame, each in a fresh process.

* `file_to_mp4`: `stream-seg run CLIP out.mp4` at 960x540. Frames per second from the first frame written to the last.
* `without_encode`: a 1920x1080 file through the default preset into an output that does nothing; its peak RSS, too.
* `start`: `stream-seg run` of one frame of the 1080p clip, from the start of its process to its exit, as its caller
  sees it: imports, opening file and network, the frame, finishing the mp4, leaving. So `one_frame_s` is an upper bound
  of the time to the first frame. `first_frame_s` is the part from the graph's start on, as the report says it. The page
  cache is warm, and numba's cache filled: the very first run on a machine takes longer.
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
    frames: Annotated[int, typer.Option(min=2, help="Frames of each drawn clip.")] = 300,
    source: Annotated[Path | None, typer.Option("--input", help="A video instead of both drawn ones.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """Frames per second, memory and the time to the first frame, each in a fresh process."""
    facts: dict[str, Any] = {"machine": describe_machine(), "input": str(source) if source else "synth://road"}
    with TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.mp4")
        with open_clip(source, size="960x540", frames=frames) as path:
            facts["file_to_mp4"] = figures_of(run_report("run", str(path), out))
        with open_clip(source, size="1920x1080", frames=frames) as path:
            facts["without_encode"] = in_fresh_process(without_encode, path)
            facts["start"] = start(path, out)
    print_results(facts, [table(facts)], json_file)


def figures_of(report: dict[str, Any]) -> dict[str, Any]:
    """What is wanted of a run's report."""
    wanted = ("fps", "seconds", "cpu_ms_per_frame", "peak_rss_mib", "engine")
    return {"frames": report["frames"]["written"], **{key: report[key] for key in wanted}}


def without_encode(path: Path) -> dict[str, Any]:
    """A file through the default preset into nothing: the figures of its report."""
    from stand_ins import nothing

    from stream_seg.cli.report import report
    from stream_seg.config.graph_file import Config, Node
    from stream_seg.runtime.graph import Graph
    from stream_seg.stages.capture import Capture

    nodes = [Node("capture", "capture", (), None, Capture(str(path)))]
    for kind, stage in default_filters().items():
        nodes.append(Node(kind, kind, (nodes[-1].name,), None, stage))
    nodes.append(Node("sink", "write", (nodes[-1].name,), None, nothing))
    with Graph(Config(tuple(nodes), "every", None)) as graph:
        graph.wait()
        seconds = (time.monotonic_ns() - graph.started_ns) / 1e9
    if graph.error is not None:
        raise graph.error
    return figures_of(report(graph, seconds=seconds))


def in_fresh_process(work: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """What `work` returns in a process of its own, which shares no memory with this one."""
    fresh = multiprocessing.get_context("spawn")
    here, there = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_answer, args=(there, work, path))
    process.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError as error:
        raise StreamSegError(f"{path}: the process that ran it died") from error
    finally:
        process.join()
    if isinstance(answer, str):
        raise StreamSegError(answer)
    return dict(answer)


def _answer(there: Connection, work: Callable[[Path], dict[str, Any]], path: Path) -> None:
    try:
        there.send(work(path))
    except StreamSegError as error:
        there.send(str(error))


def start(path: Path, out: str) -> dict[str, float]:
    """Medians, in seconds, over runs of one frame."""
    whole_s, graph_s = [], []
    for _ in range(STARTS):
        began_s = time.monotonic()
        report = run_report("run", str(path), out, "--set", "capture.frames=1")
        whole_s.append(time.monotonic() - began_s)
        graph_s.append(report["first_frame_s"])
    return {"one_frame_s": round(median(whole_s), 3), "first_frame_s": round(median(graph_s), 3), "runs": STARTS}


def table(facts: dict[str, Any]) -> Table:
    """The figures for a reader."""
    engine = facts["file_to_mp4"]["engine"]
    title = f"{facts['input']}, {engine['network']}, {engine['backend']} {engine['precision']}"
    shown = figures_table(title, "each in a fresh process", "frames", "fps", "CPU-ms per frame", "peak RSS MiB", "s")
    for key, said in (("file_to_mp4", "960x540 file to mp4"), ("without_encode", "1920x1080 file, no encoder")):
        one = facts[key]
        shown.add_row(
            said,
            *(
                f"{one['frames']}",
                f"{one['fps']:.1f}",
                f"{one['cpu_ms_per_frame']:.1f}",
                f"{one['peak_rss_mib']:.0f}",
                "",
            ),
        )
    shown.add_row("start of process to exit, one frame", "1", "", "", "", f"{facts['start']['one_frame_s']:.2f}")
    shown.add_row("of it, graph's start to the frame", "1", "", "", "", f"{facts['start']['first_frame_s']:.2f}")
    return shown


if __name__ == "__main__":
    run_command(main)
