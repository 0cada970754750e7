"""How long a frame takes, in the network alone and through the whole graph: network x size x backend x precision.

Frames are in memory and go one at a time, so that a time is that of one frame's way and no queue's. The graph is the
default one with an output that does nothing: decoding and encoding are left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from rich.table import Table

from stream_seg.backends.onnxruntime import cpu_name
from stream_seg.backends.registry import BACKENDS, installed
from stream_seg.cli.timing import alone, in_graph
from stream_seg.config.graph_file import check
from stream_seg.config.overrides import default_document, with_input, with_outputs
from stream_seg.datasets.palettes import CAMVID
from stream_seg.engines.open import open_engine
from stream_seg.engines.quantize import quantised
from stream_seg.errors import ConfigError, NetworkError, SourceError
from stream_seg.frame import Frame
from stream_seg.network.network import Network, is_network, open_network, save_network
from stream_seg.ops.resize import reduced
from stream_seg.sources.uri import parse
from stream_seg.stages.base import Frames
from stream_seg.stages.registry import SOURCES
from stream_seg.stages.segment import Segment
from stream_seg.types import Image
from stream_seg.zoo import BUILDERS, built

DRIVE = "synth://road?size=1280x720&seed=7"
PICTURES = 12
"""How many different ones are measured with, over and over; an int8 form is calibrated on them too."""
PRECISIONS = [p for p in get_args(Segment.__pydantic_fields__["precision"].annotation) if p != "auto"]  # type: ignore[attr-defined]
SIZE = (352, 480)
"""Of a network that is built for the purpose."""
PATIENCE_S = 15.0
"""Without a picture of a live input; longer than capture takes to say that it cannot be opened."""
FEW = 3
"""Combinations that are left out for which there is room to say why."""
TIMES = ("p50_ms", "p95_ms", "p99_ms", "cpu_ms")


@dataclass(frozen=True)
class Plan:
    """What is measured: every network at every (height, width), without any at its own; in every backend and
    precision, without any in all that work here; each for `seconds` alone and as long in the graph."""

    networks: Sequence[str] = ("road",)
    sizes: Sequence[tuple[int, int]] = ()
    backends: Sequence[str] = ()
    precisions: Sequence[str] = ()
    source: str = DRIVE
    seconds: float = 1.0
    threads: int = 1


def measured(plan: Plan, *, note: Callable[[str], None] = lambda _said: None) -> dict[str, Any]:
    """The figures of a plan; `note` is told of what is measured next. Raises ConfigError, NetworkError or SourceError.

    A combination that does not work is left out, unless no other is left. Keys: cpu, cores, load (before), source,
    picture [height, width], threads, rows [{network, size, trained, backend, precision, device, outside, model,
    end_to_end}], left_out [{network, size, trained, backend, precision, reason}]. `model` and `end_to_end` are
    {frames, p50_ms, p95_ms, p99_ms, cpu_ms}; `outside` is the share of a frame's median time that is not the network's.
    """
    _refuse_unknown(plan)
    facts = {"cpu": cpu_name(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "threads": plan.threads}
    frames = first_frames(plan.source, PICTURES)
    rows, failed = list[dict[str, Any]](), list[tuple[dict[str, Any], NetworkError]]()
    with TemporaryDirectory(prefix="stream-seg-") as folder:
        for said, path in _found(plan, frames, folder=Path(folder)):
            for backend, precision in product(plan.backends or installed(), plan.precisions or PRECISIONS):
                note(f"{said['network']}, {backend} {precision}")
                keys = {"network": path, "backend": backend, "precision": precision, "threads": plan.threads}
                try:
                    rows.append(said | _row(keys, frames, plan.seconds))
                except NetworkError as error:
                    failed.append((said | {"backend": backend, "precision": precision, "reason": str(error)}, error))
    if failed and not rows:
        raise failed[0][1]
    seen = {"source": parse(plan.source).shown, "picture": frames[0].image.shape[:2]}
    return {**facts, **seen, "rows": rows, "left_out": [left for left, _ in failed]}


def _refuse_unknown(plan: Plan) -> None:
    for name in plan.networks:
        if name not in BUILDERS and not is_network(name):
            raise ConfigError(f"unknown network {name!r}; known: {', '.join(BUILDERS)}, or the path of an .onnx file")
    for what, asked, known in (
        ("backend", plan.backends, BACKENDS),
        ("precision", plan.precisions, PRECISIONS),
    ):
        for name in asked:
            if name not in known:
                raise ConfigError(f"unknown {what} {name!r}; known: {', '.join(known)}")


def first_frames(uri: str, count: int) -> list[Frame]:
    """The first frames of an INPUT that are pictures, at least one. Raises SourceError or ConfigError."""
    shown = parse(uri).shown
    nodes = check(_graph(uri), where=shown).nodes
    source = next(node.stage for node in nodes if node.kind in SOURCES)
    return first_pictures(source(iter(())), count, shown=shown)


def first_pictures(frames: Frames, count: int, *, shown: str, patience_s: float = PATIENCE_S) -> list[Frame]:
    """The first of the frames that are no cards; fewer than `count` where no more come for `patience_s`. Raises
    SourceError where there is none."""
    found, last_s, signal = list[Frame](), time.monotonic(), None
    for frame in frames:
        if frame.signal is None:
            found.append(frame)
            last_s = time.monotonic()
            if len(found) == count:
                break
        elif time.monotonic() - last_s >= patience_s:
            signal = frame.signal
            break
    if not found and signal is not None:
        why = f"no picture for {patience_s:g} s ({signal.reason or signal.state})"
        raise SourceError(f"{shown}: {why}", reason=signal.reason or "no data")
    if not found:
        raise SourceError(f"{shown}: has no picture to measure with")
    return found


def _graph(uri: str) -> dict[str, Any]:
    return with_outputs(with_input(default_document(), uri), ["window"])


def _found(plan: Plan, frames: Sequence[Frame], *, folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """What a row says of each network first, and what `network:` names it by. Those without weights are built."""
    sizes: Sequence[tuple[int, int] | None] = plan.sizes or [None]
    for name, size in product(plan.networks, sizes):
        if is_network(name):
            network = open_network(name, size=size)
            path = Path(name)
            if size is not None:
                path = save_network(network, folder / "network.onnx")  # its name need be no file name
            yield {"network": name, "size": network.size, "trained": True}, str(path)
        else:
            pictures = [frame.image for frame in frames] if "int8" in plan.precisions else []
            path = untrained(name, folder, size=size or SIZE, calibration=pictures)
            yield {"network": name, "size": size or SIZE, "trained": False}, str(path)
        for file in folder.iterdir():
            file.unlink()  # up to 1 GB each


def _row(keys: dict[str, Any], frames: Sequence[Frame], seconds: float) -> dict[str, Any]:
    asked = {key: keys[key] for key in ("backend", "precision", "threads")}
    with open_engine(open_network(keys["network"]), **asked) as engine:
        model, info = alone(engine, [frame.image for frame in frames], seconds=seconds), engine.spec.info
    document = _graph(DRIVE)
    document["stages"]["segment"] |= keys
    whole = in_graph(document, frames, seconds=seconds)
    return {
        "backend": info.backend,
        "precision": info.precision,
        "device": info.device,
        "outside": round(max(0.0, 1 - model.p50_ms / whole.p50_ms), 3),
        "model": asdict(model),
        "end_to_end": asdict(whole),
    }


def as_tables(facts: Mapping[str, Any]) -> Iterator[Table]:
    """A table for each network and size, 80 columns wide at most."""
    height, width = facts["picture"]
    for head, rows in groupby(facts["rows"], lambda row: (row["network"], row["size"], row["trained"])):
        name, size, trained = head
        weights = "" if trained else ", random weights"
        title = f"{name} at {size[0]}x{size[1]}{weights}; pictures {height}x{width}; ms a frame"
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


def footnotes(facts: Mapping[str, Any]) -> str:
    """Where it was measured, and what was left out and why."""
    busy = f"; BUSY: load {facts['load']} before the start" if facts["load"] > 0.5 else ""
    machine = f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} for the network{busy}"
    meant = "outside: share of the median frame that is not the network's"
    left_out = facts["left_out"]
    reasons = [f"left out: {left['reason']}" for left in left_out]
    if len(reasons) > FEW:
        backends = dict.fromkeys(left["backend"] for left in left_out)
        told = (
            f"{name} {' '.join(dict.fromkeys(left['precision'] for left in left_out if left['backend'] == name))}"
            for name in backends
        )
        reasons = [f"not to be had: {'; '.join(told)} (--json says why)"]
    return "\n".join([meant, machine, *reasons])


MEAN, STD = (0.43, 0.42, 0.41), (0.31, 0.31, 0.31)


def untrained(name: str, folder: Path, *, size: tuple[int, int], calibration: Sequence[Image] = ()) -> Path:
    """Write FOLDER/NAME_HxW.onnx with its side-car, for CamVid's classes and pictures of `size` = (height, width).

    With pictures of any size to calibrate on, its int8 form too. Raises ConfigError for a name that is none,
    NetworkError where the size is too small or a package is missing.
    """
    if name not in BUILDERS:
        raise ConfigError(f"unknown network {name!r}; known: {', '.join(BUILDERS)}")
    try:
        import torch

        from stream_seg.training.export import export_onnx
        from stream_seg.training.setup import refuse_size
    except ImportError as error:
        raise NetworkError(f"{name} is to be built, but {error}: pip install '.[torch]'") from error
    torch.manual_seed(1)
    refuse_size(name, size, classes=len(CAMVID))
    path = folder / f"{name}_{size[0]}x{size[1]}.onnx"
    export_onnx(built(name, len(CAMVID)), path, size=size, mean=MEAN, std=STD)
    network = Network(name, CAMVID, size, path.read_bytes())
    if calibration:
        int8 = quantised(network.f32, [reduced(image, size) for image in calibration], name=name)
        network = replace(network, int8=int8)
    return save_network(network, path)
