"""The report of a run, as a table and as a JSON file."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from stream_seg.cli.console import STDOUT, print_results
from stream_seg.config.outputs import check_files
from stream_seg.files.writing import replace_file, require_writable
from stream_seg.runtime.report import Report


def check_json_file(path: Path | None, *, overwrite: bool, inputs: Iterable[str | Path | None] = ()) -> None:
    """Raise OutputError, before the work, if figures cannot be written: the file exists, or is one of `inputs`."""
    if path is not None and path != STDOUT:
        require_writable(path)
        check_files([path], overwrite=overwrite, inputs=inputs)


def write_json(figures: Mapping[str, Any], path: Path | None, *, overwrite: bool = False) -> None:
    """Write figures as JSON, in one step; None: not at all, "-": to standard output. Raises OutputError if that fails.

    A number that JSON does not have (NaN, infinity) is null.
    """
    if path is None:
        return
    text = json.dumps(_make_finite(figures), indent=2, allow_nan=False) + "\n"
    if path == STDOUT:
        sys.stdout.write(text)
    else:
        replace_file(path, text.encode(), overwrite=overwrite)


def _make_finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _make_finite(inner) for key, inner in value.items()}
    return [*map(_make_finite, value)] if isinstance(value, list | tuple) else value


def print_report(report: Report) -> None:
    """Print the report as the tables that end a run."""
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
        requests = f", {engine.requests} images at a time" if engine.requests > 1 else ""
        table.add_row("engine", f"{engine.network}, {engine.backend} {engine.precision} on {engine.device}{requests}")
    table.add_row("memory", f"{report.peak_rss_mib:.0f} MiB peak")
    for note in report.notes:
        table.add_row("note", note)
    stages = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    stages.add_column("stage")
    for heading in ("frames", "p50 ms", "p95 ms", "p99 ms"):
        stages.add_column(heading, justify="right")
    for name, stage in report.stages.items():
        stages.add_row(name, str(stage.frames), *(f"{ms:.2f}" for ms in (stage.p50_ms, stage.p95_ms, stage.p99_ms)))
    print_results(table, stages)
