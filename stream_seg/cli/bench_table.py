"""Tables of `stream-seg bench`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rich.table import Table

FEW = 3
"""Number of omitted combinations up to which the reasons are printed."""
TIMES = ("p50_ms", "p95_ms", "p99_ms", "cpu_ms")


def make_tables(facts: Mapping[str, Any]) -> Iterator[Table]:
    """Yield a table for each network and size, at most 80 columns wide."""
    height, width = facts["picture"]
    for head, rows in groupby(facts["rows"], lambda row: (row["network"], row["size"], row["trained"])):
        name, size, trained = head
        weights = "" if trained else ", random weights"
        title = f"{name} at {size[0]}x{size[1]}{weights}; images {height}x{width}; ms per frame"
        table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
        table.add_column("\nengine", no_wrap=True)
        for part in ("alone", "graph"):
            for place, heading in enumerate(("p50", "p95", "p99", "CPU")):
                table.add_column(f"{'' if place else part}\n{heading}", justify="right", min_width=5)
        table.add_column("\noutside", justify="right", no_wrap=True)
        for row in rows:
            times = [f"{row[part][key]:.1f}" for part in ("model", "end_to_end") for key in TIMES]
            table.add_row(f"{row['backend']} {row['precision']}", *times, f"{row['outside']:.0%}")
        yield table


def make_footnotes(facts: Mapping[str, Any]) -> str:
    """Return the conditions of the measurement, and the omitted combinations with the reasons."""
    busy = f"; BUSY: load {facts['load']} before the start" if facts["load"] > 0.5 else ""
    machine = f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} for the network{busy}"
    lines = ["outside: share of the median frame time spent outside the network", machine]
    omitted = facts["left_out"]
    if len(omitted) <= FEW:
        return "\n".join([*lines, *(f"omitted: {one['reason']}" for one in omitted)])
    precisions: dict[str, dict[str, None]] = {}
    for one in omitted:
        precisions.setdefault(one["backend"], {})[one["precision"]] = None
    combinations = "; ".join(f"{backend} {' '.join(names)}" for backend, names in precisions.items())
    return "\n".join([*lines, f"not available: {combinations} (--json has the reasons)"])
