"""Tables of `stream-seg engines`: the cache in one line per engine, and everything about one engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.table import Table

from stream_seg.backends.engine import ANY_GPU, Device
from stream_seg.engines.cache_entry import Entry


def make_table(entries: Sequence[Entry], *, now: datetime) -> Table:
    """Return a table with one line per engine."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("id", "network", "shape", "precision", "backend", "device"):
        table.add_column(heading, no_wrap=heading in ("id", "shape", "precision"))
    for heading in ("size", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("accuracy")
    for entry in entries:
        key = entry.key
        batch, height, width, _ = key.shape
        shape = f"{height}x{width}" if batch == 1 else f"{batch}x{height}x{width}"
        device = "GPU" if key.device == ANY_GPU else key.device.removesuffix(" Processor")
        device = f"{device} {key.compute_capability or ''}".strip()
        size, age = f"{entry.bytes / 1e6:.1f} MB", format_age(entry.created, now=now)
        identity = (key.digest[:8], entry.network, shape, key.precision, key.backend)
        table.add_row(*identity, device, size, age, entry.accuracy)
    return table


def make_details(entry: Entry, folder: Path) -> Table:
    """Return everything that is known about one engine."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    key, device = entry.key, Device(entry.key.device, compute_capability=entry.key.compute_capability)
    rows = {
        "engine": entry.name,
        "file": str(folder / entry.file),
        "SHA-256": entry.sha256,
        "created": entry.created.isoformat(),
        "network": f"{entry.network}, ONNX {key.onnx}",
        "backend": f"{key.backend} {key.version}",
        "precision": key.precision,
        "shape": " x ".join(map(str, key.shape)),
        "device": device.label,
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
        agreement = f"{figures['images']} images, {100 * figures['agreement']:.2f} % as f32"
        worst = f"worst {100 * figures['worst']:.2f} % in {figures['worst_image']}"
        table.add_row(f"accuracy, {name}", f"{agreement}, {worst}{miou}")
    table.add_row("compared", f"on {entry.gate['source']}, by {entry.gate['computed_by']}")
    return table


def describe_engine(entry: Entry) -> str:
    """Return precision, backend, device and accuracy of an engine in a few words."""
    key, device = entry.key, Device(entry.key.device, compute_capability=entry.key.compute_capability)
    text = f"{key.precision} for {key.backend} on {device.label}"
    return text if entry.gate is None else f"{text}, on held-back images: {entry.accuracy}"


def format_age(created: datetime, *, now: datetime) -> str:
    """Return an age in its largest unit, such as "3 d"."""
    seconds = max((now - created).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
