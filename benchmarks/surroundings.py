"""Shared parts of the benchmarks: the machine, the clip, tables and the command line."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeAlias

import typer
from processes import run_stream_seg
from rich.console import Console
from rich.table import Table

from stream_seg.errors import OutputError, StreamSegError
from stream_seg.stages.base import Stage

PACKAGES = ("numpy", "onnxruntime", "opencv-python", "openvino", "pyzmq", "stream-seg")


def describe_machine() -> dict[str, Any]:
    """Return the CPU, its relevant features, cores, load before the start, and versions."""
    from stream_seg.backends.cpu import count_cores
    from stream_seg.cli.doctor import cpu_features

    return {
        "cpu": _cpu(),
        "features": cpu_features(),
        "cores": count_cores(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def _cpu() -> str:
    """Return the CPU's name, with family and model if known: virtual machines give two generations the same name."""
    from stream_seg.backends.cpu import cpu_name

    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    matches = [re.search(rf"^{key}\s*: (\d+)$", text, re.MULTILINE) for key in ("cpu family", "model")]
    family, model = (match[1] if match else None for match in matches)
    return f"{cpu_name()} (family {family}, model {model})" if family and model else cpu_name()


def format_machine(facts: dict[str, Any]) -> str:
    """Format the facts of `describe_machine` in two lines, with a warning if the machine was busy."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    cpu = " ".join([facts["cpu"], *facts["features"]])
    busy = f"; BUSY: load {facts['load']} before the start" if facts["load"] > 0.5 else ""
    return f"{cpu}, {facts['cores']} cores, {facts['system']}{busy}\nPython {facts['python']}, {versions}"


@contextmanager
def open_clip(video: Path | None, *, size: str, frames: int) -> Iterator[Path]:
    """Yield `video`, or else a synthetic drive of `size` (WIDTHxHEIGHT), encoded once by another process."""
    if video is not None:
        yield video
        return
    with TemporaryDirectory() as folder:
        path, graph = Path(folder) / "clip.mp4", Path(folder) / "clip.yaml"
        width, height = size.split("x")
        graph.write_text(
            f"stages:\n"
            f"  synthetic: {{width: {width}, height: {height}, frames: {frames}, seed: 7, truth: false}}\n"
            f"  write: {{input: synthetic, path: {path}}}\n",
            encoding="utf-8",
        )
        run_stream_seg("run", "--quiet", "--config", str(graph))
        yield path


def default_filters() -> dict[str, Stage]:
    """Return the filters of the graph that runs without --config, by name."""
    from stream_seg.config.graph_file import check
    from stream_seg.config.overrides import default_document, with_input, with_outputs

    document = with_outputs(with_input(default_document(), "in.mp4"), ["out.mp4"])
    return {node.name: node.stage for node in check(document, where="default.yaml").nodes if node.role == "filter"}


def figures_table(title: str, *headings: str) -> Table:
    """Return an empty table of figures: names on the left, numbers on the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def refuse_file(path: Path | None) -> Path | None:
    """Return a path to write to. Raises OutputError, before the work, for a file that exists."""
    if path is not None and path.exists():
        raise OutputError(f"{path} exists; remove it, or choose another name")
    return path


JsonFile: TypeAlias = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.", callback=refuse_file)
]


def print_results(facts: dict[str, Any], tables: list[Table], json_file: Path | None) -> None:
    """Print the tables and the machine, and write the JSON."""
    from stream_seg.cli.report import write_json

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for table in tables:
        console.print(table, "")
    console.print(format_machine(facts["machine"]), style="dim", soft_wrap=True)
    if json_file is not None:
        write_json(facts, json_file)


def run_command(main: Callable[..., None]) -> None:
    """Run a benchmark's function as a command line; a StreamSegError is one line."""
    run_program(lambda: typer.run(main))


def run_program(program: Callable[[], None]) -> None:
    """Run a program that may have several commands; a StreamSegError is one line."""
    try:
        program()
    except StreamSegError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
