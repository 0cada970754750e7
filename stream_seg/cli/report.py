"""The report of a run, as a table and as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stream_seg.config.outputs import check_files
from stream_seg.files import replace_file, require_writable
from stream_seg.runtime.report import Report


def check_json_file(path: Path | None, *, overwrite: bool, inputs: Iterable[str | Path | None] = ()) -> None:
    """Raise OutputError, before the work, if figures cannot be written: the file exists, or is one of `inputs`."""
    if path is not None:
        require_writable(path)
        check_files([path], overwrite=overwrite, inputs=inputs)


def write_json(figures: dict[str, Any], path: Path | None, *, overwrite: bool = False) -> None:
    """Write figures as JSON, in one step; None: not at all. Raises OutputError if that fails."""
    if path is not None:
        replace_file(path, (json.dumps(figures, indent=2) + "\n").encode(), overwrite=overwrite)


def print_report(report: Report, console: Console) -> None:
    """Print the report as the table that ends a run."""
    frames = report.frames
    drops = {reason: number for reason, number in frames.dropped.items() if number}
    dropped = ", ".join(f"{number} {reason}" for reason, number in drops.items()) or "none"
    placeholders = f", {frames.placeholders} placeholder frames" if frames.placeholders else ""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_row("frames", f"{frames.captured} in, {frames.written} out, dropped: {dropped}{placeholders}")
    table.add_row("speed", f"{report.fps:.1f} fps end to end, {report.seconds:.1f} s in all")
    age = report.age_ms
    table.add_row("frame age", f"{age.p50:.0f} ms median, {age.p99:.0f} ms p99, policy {report.policy}")
    if (engine := report.engine) is not None:
        table.add_row("engine", f"{engine.network}, {engine.backend} {engine.precision} on {engine.device}")
    table.add_row("memory", f"{report.peak_rss_mib:.0f} MiB peak")
    stages = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    stages.add_column("stage")
    for heading in ("frames", "p50 ms", "p95 ms", "p99 ms"):
        stages.add_column(heading, justify="right")
    for name, stage in report.stages.items():
        stages.add_row(name, str(stage.frames), *(f"{ms:.2f}" for ms in (stage.p50_ms, stage.p95_ms, stage.p99_ms)))
    console.print(table)
    console.print()
    console.print(stages)
