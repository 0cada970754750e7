"""`stream-seg bench`: time per frame, in the network alone and through the whole graph.

Every combination of network, size, backend and precision is timed. Frames are in memory and go through one at a time,
so a time is that of one frame without queueing. The graph is the default one with an output that does nothing: decoding
and encoding are excluded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from stream_seg.backends.choose import available_backends
from stream_seg.backends.cpu import cpu_name
from stream_seg.backends.registry import BACKENDS, precision_names
from stream_seg.cli.timing import graph_document, read_frames, time_engine, time_graph
from stream_seg.datasets.palettes import CAMVID
from stream_seg.engines.calibration import quantize
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.frame import Frame
from stream_seg.installation import install_hint
from stream_seg.network.network import Network, is_network, open_network, save_network
from stream_seg.ops.resize import resize_image
from stream_seg.schema.validation import describe_unknown
from stream_seg.sources.uri import parse_source
from stream_seg.types import Image
from stream_seg.zoo import BUILDERS, build_network

DRIVE = "synth://road?size=1280x720&seed=7"
FRAME_COUNT = 12
"""Number of different frames, used over and over; an int8 form is calibrated on them too."""
SIZE = (352, 480)
"""Default input size of a network with random weights."""
MEAN, STD = (0.43, 0.42, 0.41), (0.31, 0.31, 0.31)
"""Normalization of a network with random weights."""
FEW = 3
"""Number of omitted combinations up to which the reasons are printed."""


@dataclass(frozen=True)
class BenchPlan:
    """Combinations to time: every network at every (height, width), on every backend, in every precision.

    Empty sizes stand for the network's own, empty backends and precisions for all that work here. Each combination is
    timed for `seconds` alone and as long in the graph.
    """

    networks: Sequence[str] = ("road",)
    sizes: Sequence[tuple[int, int]] = ()
    backends: Sequence[str] = ()
    precisions: Sequence[str] = ()
    source: str = DRIVE
    seconds: float = 1.0
    threads: int = 1


def run_benchmark(plan: BenchPlan, *, on_status: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Time all combinations of a plan. Raises ConfigError, NetworkError or SourceError.

    `on_status` is called with the combination that is timed next. Combinations that do not work are omitted, unless
    none is left. Keys: cpu, cores, load (before), source, image [height, width], threads, rows [{network, size,
    trained, backend, precision, device, outside, model, end_to_end}], left_out [{network, size, trained, backend,
    precision, reason}]. `model` and `end_to_end` are {frames, p50_ms, p95_ms, p99_ms, cpu_ms}; `outside` is the share
    of a frame's median time that is spent outside the network.
    """
    _check_names(plan)
    load = round(os.getloadavg()[0], 2)
    facts: dict[str, Any] = {"cpu": cpu_name(), "cores": os.cpu_count(), "load": load, "threads": plan.threads}
    frames = read_frames(plan.source, FRAME_COUNT)
    backends = plan.backends or available_backends()
    precisions = plan.precisions or precision_names()[1:]
    rows, failures = list[dict[str, Any]](), list[tuple[dict[str, Any], NetworkError]]()
    with TemporaryDirectory(prefix="stream-seg-") as folder:
        for columns, path in _open_networks(plan, frames, folder=Path(folder)):
            for backend, precision in product(backends, precisions):
                on_status(f"{columns['network']}, {backend} {precision}")
                keys = {"network": path, "backend": backend, "precision": precision, "threads": plan.threads}
                try:
                    rows.append(columns | _time_combination(keys, frames, plan.seconds))
                except NetworkError as error:
                    failure = columns | {"backend": backend, "precision": precision, "reason": str(error)}
                    failures.append((failure, error))
    if failures and not rows:
        raise failures[0][1]
    facts |= {"source": parse_source(plan.source).display, "image": frames[0].image.shape[:2]}
    return {**facts, "rows": rows, "left_out": [failure for failure, _ in failures]}


def _check_names(plan: BenchPlan) -> None:
    for name in plan.networks:
        if name not in BUILDERS and not is_network(name):
            raise ConfigError(f"{describe_unknown('network', name, BUILDERS)}, or the path of an .onnx file")
    known = {"backend": (plan.backends, BACKENDS), "precision": (plan.precisions, precision_names()[1:])}
    for kind, (names, valid) in known.items():
        for name in names:
            if name not in valid:
                raise ConfigError(describe_unknown(kind, name, valid))


def _open_networks(plan: BenchPlan, frames: Sequence[Frame], *, folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the first columns of a row and the value of `network:` for each network and size."""
    sizes: Sequence[tuple[int, int] | None] = plan.sizes or [None]
    for name, size in product(plan.networks, sizes):
        trained, path = is_network(name), Path(name)
        if not trained:
            images = [frame.image for frame in frames] if "int8" in plan.precisions else []
            path = build_untrained(name, folder, size=size or SIZE, calibration=images)
        elif size is not None:  # the name of a network need not be a file name
            path = save_network(open_network(name, size=size), folder / "network.onnx")
        own_size = size or (open_network(name).size if trained else SIZE)
        yield {"network": name, "size": own_size, "trained": trained}, str(path)
        for file in folder.iterdir():
            file.unlink()  # up to 1 GB each


def _time_combination(keys: dict[str, Any], frames: Sequence[Frame], seconds: float) -> dict[str, Any]:
    options = {key: keys[key] for key in ("backend", "precision", "threads")}
    with open_engine(open_network(keys["network"]), **options) as engine:
        model, info = time_engine(engine, [frame.image for frame in frames], seconds=seconds), engine.spec.info
    document = graph_document(DRIVE)
    document["stages"]["segment"] |= keys
    whole = time_graph(document, frames, seconds=seconds)
    return {
        "backend": info.backend,
        "precision": info.precision,
        "device": info.device,
        "outside": round(max(0.0, 1 - model.p50_ms / whole.p50_ms), 3),
        "model": asdict(model),
        "end_to_end": asdict(whole),
    }


def build_untrained(name: str, folder: Path, *, size: tuple[int, int], calibration: Sequence[Image] = ()) -> Path:
    """Write a network of the zoo with random weights to FOLDER/NAME_HxW.onnx, for CamVid's classes. Return its path.

    With images to calibrate on, its int8 form too. Raises NetworkError where the size is too small or a package is
    missing.
    """
    try:
        import torch

        from stream_seg.training.export import export_onnx
        from stream_seg.training.setup import refuse_size
        from stream_seg.zoo.weights.input_spec import InputSpec
    except ImportError as error:
        raise NetworkError(f"building {name} needs torch ({error}): {install_hint('[torch]')}") from error
    torch.manual_seed(1)
    refuse_size(name, size, classes=len(CAMVID))
    path = folder / f"{name}_{size[0]}x{size[1]}.onnx"
    export_onnx(build_network(name, len(CAMVID)), path, size=size, spec=InputSpec(MEAN, STD))
    network = Network(name, CAMVID, size, path.read_bytes())
    if calibration:
        int8 = quantize(network.f32, [resize_image(image, size) for image in calibration], name=name)
        network = replace(network, int8=int8)
    return save_network(network, path)


def make_tables(facts: Mapping[str, Any]) -> Iterator[Table]:
    """Yield a table for each network and size, at most 80 columns wide."""
    height, width = facts["image"]
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
            keys = ("p50_ms", "p95_ms", "p99_ms", "cpu_ms")
            times = [f"{row[part][key]:.1f}" for part in ("model", "end_to_end") for key in keys]
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
