"""`stream-seg bench`: time per frame, in the network alone and through the whole graph.

Every combination of network, size, backend and precision is timed. Frames are in memory and go through one at a time,
so a time is that of one frame without queueing. The graph is the default one with an output that does nothing: decoding
and encoding are excluded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stream_seg.backends.choose import available_backends
from stream_seg.backends.engine import cpu_name
from stream_seg.backends.registry import backend_names, precision_names
from stream_seg.cli.timing import time_engine, time_graph
from stream_seg.config.graph_file import check
from stream_seg.config.overrides import default_document, with_input, with_outputs
from stream_seg.datasets.palettes import CAMVID
from stream_seg.engines.calibration import quantize
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError, SourceError
from stream_seg.frame import Frame
from stream_seg.network.network import Network, is_network, open_network, save_network
from stream_seg.ops.resize import resize_image
from stream_seg.schema.validation import describe_unknown
from stream_seg.sources.uri import parse_source
from stream_seg.stages.base import Frames
from stream_seg.stages.registry import StageLoader
from stream_seg.types import Image
from stream_seg.zoo import BUILDERS, build_network

DRIVE = "synth://road?size=1280x720&seed=7"
FRAME_COUNT = 12
"""Number of different frames, used over and over; an int8 form is calibrated on them too."""
SIZE = (352, 480)
"""Default input size of a network with random weights."""
MEAN, STD = (0.43, 0.42, 0.41), (0.31, 0.31, 0.31)
"""Normalization of a network with random weights."""
PATIENCE_S = 15.0
"""Time to wait for an image of a live input; longer than capture takes to report that it cannot be opened."""


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
    none is left. Keys: cpu, cores, load (before), source, picture [height, width], threads, rows [{network, size,
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
    facts |= {"source": parse_source(plan.source).display, "picture": frames[0].image.shape[:2]}
    return {**facts, "rows": rows, "left_out": [failure for failure, _ in failures]}


def _check_names(plan: BenchPlan) -> None:
    for name in plan.networks:
        if name not in BUILDERS and not is_network(name):
            raise ConfigError(f"{describe_unknown('network', name, BUILDERS)}, or the path of an .onnx file")
    for kind, names, known in (
        ("backend", plan.backends, backend_names()[1:]),
        ("precision", plan.precisions, precision_names()[1:]),
    ):
        for name in names:
            if name not in known:
                raise ConfigError(describe_unknown(kind, name, known))


def read_frames(uri: str, count: int) -> list[Frame]:
    """Return the first frames of an INPUT that have an image, at least one. Raises SourceError or ConfigError."""
    shown = parse_source(uri).display
    (source,) = check(_graph_document(uri), where=shown).sources
    return take_frames(source.stage(iter(())), count, shown=shown)


def take_frames(frames: Frames, count: int, *, shown: str, patience_s: float = PATIENCE_S) -> list[Frame]:
    """Return the first `count` frames that are no placeholders, fewer if none comes for `patience_s`.

    Raises SourceError where there is none.
    """
    taken, last_s, signal = list[Frame](), time.monotonic(), None
    for frame in frames:
        if frame.signal is None:
            taken.append(frame)
            last_s = time.monotonic()
            if len(taken) == count:
                break
        elif time.monotonic() - last_s >= patience_s:
            signal = frame.signal
            break
    if not taken and signal is not None:
        cause = signal.reason or signal.state
        raise SourceError(f"{shown}: no image for {patience_s:g} s ({cause})", reason=signal.reason or "no data")
    if not taken:
        raise SourceError(f"{shown}: has no image to measure with")
    return taken


def _graph_document(uri: str) -> dict[str, Any]:
    loader = StageLoader()
    return with_outputs(with_input(default_document(), uri, loader), ["window"], loader)


def _open_networks(plan: BenchPlan, frames: Sequence[Frame], *, folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the first columns of a row and the value of `network:` for each network and size.

    Networks without weights are built with random ones.
    """
    sizes: Sequence[tuple[int, int] | None] = plan.sizes or [None]
    for name, size in product(plan.networks, sizes):
        if is_network(name):
            network = open_network(name, size=size)
            path = Path(name)
            if size is not None:
                path = save_network(network, folder / "network.onnx")  # the name of a network need not be a file name
            yield {"network": name, "size": network.size, "trained": True}, str(path)
        else:
            images = [frame.image for frame in frames] if "int8" in plan.precisions else []
            path = build_untrained(name, folder, size=size or SIZE, calibration=images)
            yield {"network": name, "size": size or SIZE, "trained": False}, str(path)
        for file in folder.iterdir():
            file.unlink()  # up to 1 GB each


def _time_combination(keys: dict[str, Any], frames: Sequence[Frame], seconds: float) -> dict[str, Any]:
    options = {key: keys[key] for key in ("backend", "precision", "threads")}
    with open_engine(open_network(keys["network"]), **options) as engine:
        model, info = time_engine(engine, [frame.image for frame in frames], seconds=seconds), engine.spec.info
    document = _graph_document(DRIVE)
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

    With images to calibrate on, its int8 form too. Raises ConfigError for an unknown name, NetworkError where the size
    is too small or a package is missing.
    """
    if name not in BUILDERS:
        raise ConfigError(describe_unknown("network", name, BUILDERS))
    try:
        import torch

        from stream_seg.training.export import export_onnx
        from stream_seg.training.setup import refuse_size
        from stream_seg.zoo.weights.input_spec import InputSpec
    except ImportError as error:
        raise NetworkError(f"building {name} needs torch ({error}): pip install '.[torch]'") from error
    torch.manual_seed(1)
    refuse_size(name, size, classes=len(CAMVID))
    path = folder / f"{name}_{size[0]}x{size[1]}.onnx"
    export_onnx(build_network(name, len(CAMVID)), path, size=size, spec=InputSpec(MEAN, STD))
    network = Network(name, CAMVID, size, path.read_bytes())
    if calibration:
        int8 = quantize(network.f32, [resize_image(image, size) for image in calibration], name=name)
        network = replace(network, int8=int8)
    return save_network(network, path)
