"""Built engines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.table import Table

from stream_seg.backends.entry import Entry
from stream_seg.backends.target import place


def as_table(entries: Sequence[Entry], *, now: datetime) -> Table:
    """One line each; `id` tells it from the others for `show`."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("id", "network", "shape", "precision", "backend", "device"):
        table.add_column(heading, no_wrap=heading in ("id", "shape", "precision"))
    for heading in ("size", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gate")
    for entry in entries:
        key = entry.key
        batch, height, width, _ = key.shape
        shape = f"{height}x{width}" if batch == 1 else f"{batch}x{height}x{width}"
        device = f"{'GPU' if key.device == 'any' else key.device} {key.compute_capability or ''}".strip()
        size, age = f"{entry.bytes / 1e6:.1f} MB", old(entry.created, now=now)
        table.add_row(key.digest[:8], entry.network, shape, key.precision, key.backend, device, size, age, entry.judged)
    return table


def old(created: datetime, *, now: datetime) -> str:
    """An age in its largest unit."""
    seconds = max((now - created).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def as_details(entry: Entry, folder: Path) -> Table:
    """All that is known of one engine."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    key = entry.key
    rows = {
        "engine": entry.name,
        "file": str(folder / entry.file),
        "SHA-256": entry.sha256,
        "created": entry.created.isoformat(),
        "network": f"{entry.network}, ONNX {key.onnx}",
        "backend": f"{key.backend} {key.version}",
        "precision": key.precision,
        "shape": " x ".join(map(str, key.shape)),
        "device": place(key.device, key.compute_capability),
        "calibration": key.calibration or "none",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    for line in entry.refused:
        table.add_row("refused before", line)
    if entry.gate is None:
        return table
    for name, figures in (("calibration", entry.gate["calibration"]), ("held back", entry.gate["held_back"])):
        before, after = figures["miou_f32"], figures["miou_lower"]
        miou = "" if before is None or after is None else f", mIoU {100 * before:.2f} -> {100 * after:.2f}"
        worst = f"worst {100 * figures['worst']:.2f} % in {figures['worst_picture']}"
        told = f"{figures['pictures']} pictures, {100 * figures['agreement']:.2f} % as f32, {worst}{miou}"
        table.add_row(f"gate, {name}", told)
    table.add_row("compared", f"on {entry.gate['source']}, by {entry.gate['computed_by']}")
    return table
