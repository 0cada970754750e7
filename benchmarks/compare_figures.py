"""Medians, ranges, ratios, floors and tables of compare.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from load import mark_worthless
from race import BASELINES, OURS, Row, Run
from rich.table import Table
from surroundings import figures_table

from stream_seg.backends.cpu import count_cores
from stream_seg.errors import StreamSegError

HEADLINES = ("960x540 to mp4", "1920x1080, not encoded")
LABELS = {
    "ours": "ours, same work",
    "ours_default": "ours, default",
    "expert": "expert",
    "expert_area": "expert, INTER_AREA",
    "expert_plus": "expert with our tricks",
    "decent": "decent, one thread",
    "naive": "naive, one thread",
}


class Floor(NamedTuple):
    """A limit for a figure of one row: `least` or `most`."""

    row: str
    contender: str
    figure: str
    least: float | None = None
    most: float | None = None


FLOORS = (
    Floor(HEADLINES[0], "ours", "fps", least=1.10),
    Floor(HEADLINES[1], "ours", "fps", least=1.00),
    Floor(HEADLINES[0], "ours_default", "fps", least=0.92),
    Floor(HEADLINES[1], "ours_default", "fps", least=0.90),
    Floor(HEADLINES[0], "ours", "cpu_ms", most=1.06),
    Floor(HEADLINES[1], "ours", "cpu_ms", most=1.06),
    Floor(HEADLINES[0], "ours", "share_of_limit", least=0.72),
    Floor(HEADLINES[1], "ours", "share_of_limit", least=0.64),
)
"""Ratios to the expert's figures, and the share of the bare limit."""


def summarize_row(row: Row, runs: Mapping[str, Sequence[Run]], limits: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return medians and ranges of each contender, its ratios to the expert, and the bare limit.

    Raises StreamSegError if the contenders saw different numbers of frames.
    """
    frames = {run.frames for name, done in runs.items() if name not in BASELINES for run in done}
    if len(frames) != 1:
        raise StreamSegError(f"{row.title}: runs of {sorted(frames)} frames; expected one number of frames")
    fastest = max(row.experts, key=lambda name: median(run.fps for run in runs[name]))
    parts = {name: round(median(limit[name] for limit in limits), 2) for name in ("decode", "network", "encode")}
    if not row.encoded:
        del parts["encode"]
    limit_fps = count_cores() * 1000 / sum(parts.values())
    return {
        "frames": frames.pop(),
        "expert": fastest,
        "contenders": {name: summarize_runs(done) for name, done in runs.items()},
        "ratios": {name: compute_ratios(done, runs[fastest]) for name, done in runs.items()},
        "limit": {"cpu_ms": parts, "fps": round(limit_fps, 1)},
        "share_of_limit": {name: round(median(run.fps for run in runs[name]) / limit_fps, 3) for name in OURS},
    }


def summarize_runs(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Return median, least and most of each figure."""
    summary = {}
    for figure in ("fps", "cpu_ms", "peak_rss_mib", "first_frame_s"):
        values = [getattr(run, figure) for run in runs]
        numbers = {"median": median(values), "least": min(values), "most": max(values)}
        summary[figure] = {name: round(value, 3) for name, value in numbers.items()}
    return summary


def compute_ratios(runs: Sequence[Run], reference: Sequence[Run]) -> dict[str, float]:
    """Return frames/s and CPU time relative to the runs of the same round of `reference`, medians of the rounds."""
    pairs = list(zip(runs, reference, strict=True))
    return {
        "fps": round(median(run.fps / other.fps for run, other in pairs), 3),
        "cpu_ms": round(median(run.cpu_ms / other.cpu_ms for run, other in pairs), 3),
    }


def check_floors(rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each floor of these rows with its figure, and whether it is met."""
    checks = []
    for floor in FLOORS:
        if floor.row in rows:
            facts = rows[floor.row]
            is_share = floor.figure == "share_of_limit"
            value = facts[floor.figure][floor.contender] if is_share else facts["ratios"][floor.contender][floor.figure]
            met = value >= floor.least if floor.least is not None else value <= floor.most
            checks.append({**floor._asdict(), "value": value, "met": met})
    return checks


def make_tables(facts: Mapping[str, Any]) -> list[Table]:
    """Return one table per row, and one of the floors."""
    tables = [make_row_table(title, row, facts) for title, row in facts["rows"].items()]
    if facts["floors"]:
        table = figures_table("floors", "to the expert, and of the bare limit", "contender", "figure", "floor", "")
        for check in facts["floors"]:
            limit = f">= {check['least']:.2f}" if check["least"] is not None else f"<= {check['most']:.2f}"
            name = {"fps": "frames/s", "cpu_ms": "CPU", "share_of_limit": "share of the limit"}[check["figure"]]
            label = f"{check['row']}: {name}"
            met = "met" if check["met"] else "MISSED"
            table.add_row(label, LABELS[check["contender"]], f"{check['value']:.2f}", limit, met)
        tables.append(table)
    return tables


def make_row_table(title: str, row: Mapping[str, Any], facts: Mapping[str, Any]) -> Table:
    """Return the table of one row."""
    rounds = f"{facts['input']}, {facts['rounds']} rounds of {row['frames']} frames"
    headings = ("frames/s", "range", "to expert", "CPU-ms", "to expert", "RSS MiB", "first frame s")
    table = figures_table(f"{title} ({rounds}){mark_worthless(facts['load'])}", "", *headings)
    for name, figures in row["contenders"].items():
        fps, ratios = figures["fps"], row["ratios"][name]
        table.add_row(
            LABELS[name] + (" *" if name == row["expert"] else ""),
            *(f"{fps['median']:.1f}", f"{fps['least']:.1f} - {fps['most']:.1f}", f"{ratios['fps']:.2f} x"),
            *(f"{figures['cpu_ms']['median']:.1f}", f"{ratios['cpu_ms']:.2f} x"),
            *(f"{figures['peak_rss_mib']['median']:.0f}", f"{figures['first_frame_s']['median']:.2f}"),
        )
    limit = row["limit"]
    table.add_row("bare limit", f"{limit['fps']:.1f}", "", "", f"{sum(limit['cpu_ms'].values()):.1f}", style="dim")
    parts = " + ".join(f"{name} {cpu_ms:.1f}" for name, cpu_ms in limit["cpu_ms"].items())
    shares = ", ".join(f"{LABELS[name]} {share:.0%}" for name, share in row["share_of_limit"].items())
    table.caption, table.caption_justify = f"bare limit: {parts} CPU-ms, each alone. {shares} of it.", "left"
    return table
