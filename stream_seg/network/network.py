"""A network, ready for any backend: its portable ONNX, classes and input size; opened from the key `network:`.

    network: road                        a name of `shipped.NETWORKS`: ONNX and side-car are package data
    network: runs/road.onnx              an exported network: road.json beside it describes it
    network: models/mine.onnx            a user's own network: mine.yaml beside it describes it (`SideCar`)
    network: configs/networks/mine.yaml  the same; its key `onnx` is the path of the network, relative to the YAML
    network: {onnx: mine.onnx, classes: [...]}   the same, inline; the path is relative to the working directory

A portable ONNX has one fixed interface, so that every backend can run it: input `image` uint8 (N, H, W, 3) BGR, output
`scores` float32 (N, C, h, w), or `labels` uint8 (N, h, w) of a network without scores. Pre-processing is part of its
graph; enlarging the scores and taking their arg-max is not, because operators of ONNX take up to twenty times as long
for it as `ops.labels`. Exported networks are portable; `wrap.wrap_onnx` makes a user's own network portable.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files.writing import is_file
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.network.sidecar import AccuracyReport, Export, SideCar, colour_by_name, make_classes
from stream_seg.redact import redact_secrets
from stream_seg.schema.validation import describe_unknown, require_mapping, validate
from stream_seg.schema.yaml import parse_yaml
from stream_seg.types import Classes

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """A network as serialized portable ONNX: `f32`, and `int8` if there is a quantized form.

    `size` is the (height, width) of the input. `int8_report` is the accuracy report of the int8 form, None if it was
    not compared. `int8_tested`: a test shows that every backend computes the int8 form right, so none corrects it.
    """

    name: str
    classes: Classes
    size: tuple[int, int]
    f32: bytes = field(repr=False)
    int8: bytes | None = field(repr=False, default=None)
    int8_report: AccuracyReport | None = field(repr=False, hash=False, default=None)
    int8_tested: bool = field(default=False, compare=False)


def is_network(source: str) -> bool:
    """Return True for a known name and for a path with the suffix of a network. Opens nothing."""
    return source in NETWORKS or Path(source).suffix.lower() in (".onnx", ".yaml", ".yml", ".json")


def explain_unknown(source: str) -> str:
    """Return the error message for a source that is not a network."""
    return f"{describe_unknown('network', source, NETWORKS)}, or the path of an .onnx, .yaml or .json file"


def open_network(source: str | Path | Mapping[str, Any], *, size: tuple[int, int] | None = None) -> Network:
    """Open the network that the key `network:` names, with an input of `size` = (height, width) if given.

    Raises NetworkError for missing or broken files and a size that does not fit, ConfigError for an unknown name and a
    wrong side-car.
    """
    network = _open(source, size)
    if size is None or network.size == size:
        return network
    from stream_seg.network.resize import MULTIPLES, check_size, find_size

    resized = resize_network(network, size)
    try:
        check_size(resized.f32, network.size, size, name=network.name)
    except NetworkError as error:
        sides = [[max(1, round(side / multiple)) * multiple for side in size] for multiple in MULTIPLES]
        nearest = find_size(network.f32, network.size, ((height, width) for height, width in sides))
        if nearest is None:
            raise
        raise NetworkError(f"{error}; {nearest[0]}x{nearest[1]} does") from error
    return resized


def resize_network(network: Network, size: tuple[int, int]) -> Network:
    """Return `network` with an input of `size` = (height, width), multiples of its strides; see `network.resize`."""
    from stream_seg.network.resize import resize_onnx

    f32 = resize_onnx(network.f32, network.size, size)
    int8 = network.int8 and resize_onnx(network.int8, network.size, size)
    return replace(network, size=size, f32=f32, int8=int8, int8_report=None)  # the report is for the other size


def bias_network(network: Network, prefer: Mapping[str, float], *, where: str) -> Network:
    """Return `network` with a per-class bias added to its scores, on top of any that it has.

    Raises ConfigError for an unknown class, NetworkError for a network without scores.
    """
    if not prefer:
        return network
    from stream_seg.network.onnx_builder import bias_onnx

    bias = [0.0] * len(network.classes)
    for name, value in prefer.items():
        bias[network.classes.index(name, where=where)] = value
    f32 = bias_onnx(network.f32, bias, name=network.name)
    int8 = network.int8 and bias_onnx(network.int8, bias, name=network.name)
    return replace(network, f32=f32, int8=int8, int8_report=None)  # the report is for the network without bias


def recolour_network(network: Network, palette: str | None, *, where: str) -> Network:
    """Return `network` with the colours of a palette of PALETTES by class name; None: unchanged."""
    if palette is None:
        return network
    return replace(network, classes=colour_by_name(network.classes.names, palette, where=where))


def save_network(network: Network, path: Path) -> Path:
    """Write `network` to PATH (.onnx), with its int8 form and side-car beside it, for `open_network`. Return PATH."""
    sidecar: dict[str, Any] = {
        "name": network.name,
        "size": network.size,
        "classes": network.classes.names,
        "palette": network.classes.colours,
        "sha256": hashlib.sha256(network.f32).hexdigest(),
    }
    path.write_bytes(network.f32)
    if network.int8 is not None:
        path.with_stem(f"{path.stem}_int8").write_bytes(network.int8)
        sidecar["int8"] = {"sha256": hashlib.sha256(network.int8).hexdigest(), "report": network.int8_report}
    path.with_suffix(".json").write_text(json.dumps(sidecar), encoding="utf-8")
    return path


def _open(source: str | Path | Mapping[str, Any], size: tuple[int, int] | None) -> Network:
    overrides = {} if size is None else {"size": size}
    if isinstance(source, Mapping):
        sidecar = validate(SideCar, {**source, **overrides}, where="network")
        return _open_own(sidecar, where="network", folder=Path())
    if str(source) in NETWORKS:
        return replace(_open_export(SHIPPED / NETWORKS[str(source)]), int8_tested=True)
    if not is_network(str(source)):
        raise ConfigError(explain_unknown(str(source)))
    path = Path(source)
    if not is_file(path, error=NetworkError):
        allowed = f"a network is a name ({', '.join(NETWORKS)}) or a file"
        raise NetworkError(f"{redact_secrets(str(source))}: no such file; {allowed}")
    described_by = path
    if path.suffix.lower() == ".onnx":
        beside = (path.with_suffix(suffix) for suffix in (".yaml", ".yml", ".json"))
        sidecars = [sidecar for sidecar in beside if sidecar.is_file()]
        if not sidecars:
            hint = f"write {path.with_suffix('.yaml').name} beside it, at least `classes: [...]`"
            raise NetworkError(f"{path}: no side-car; {hint}")
        if len(sidecars) > 1:
            names = " and ".join(sidecar.name for sidecar in sidecars)
            raise NetworkError(f"{path}: described by {names}; open one of them, or remove one")
        described_by = sidecars[0]
    if described_by.suffix.lower() == ".json":
        return _open_export(described_by)
    where = str(described_by)
    keys = parse_yaml(_read(described_by).decode("utf-8", "replace"), where=where)
    require_mapping(keys, SideCar.model_fields, where=where)
    keys = {"onnx": described_by.with_suffix(".onnx").name, **keys, **overrides}
    own, folder = validate(SideCar, keys, where=where), described_by.parent
    if path != described_by and own.onnx is not None and (folder / own.onnx).resolve() != path.resolve():
        raise ConfigError(f"{where}: onnx: {own.onnx} is another file than {path}; open {where}, or remove the key")
    return _open_own(own, where=where, folder=folder)


def _open_export(sidecar: Path) -> Network:
    export = validate(Export, _read(sidecar), where=str(sidecar))
    f32 = _read_verified(sidecar.with_suffix(".onnx"), export.sha256, sidecar)
    classes = make_classes(export.classes, export.palette, where=str(sidecar))
    network = Network(export.name, classes, export.size, f32)
    int8 = sidecar.with_name(f"{sidecar.stem}_int8.onnx")
    if int8.is_file():
        if export.int8 is not None and (sha256 := export.int8.sha256) is not None:
            return replace(network, int8=_read_verified(int8, sha256, sidecar), int8_report=export.int8.report)
        LOG.warning("%s: not used: %s has no accuracy report of it; export it again", int8, sidecar.name)
    return network


def _read_verified(onnx: Path, sha256: str, sidecar: Path) -> bytes:
    """Return an ONNX that a side-car describes. Raises NetworkError for another file, and for external weights."""
    content = _read(onnx)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise NetworkError(f"{onnx}: not the file that {sidecar.name} describes (its SHA-256 differs); export it again")
    if b"location" in content:  # a key of every external tensor; without it onnx, which takes long, is not imported
        from stream_seg.network.onnx_file import has_external_data

        if has_external_data(content):
            fault = f"has weights in other files, which {sidecar.name} does not describe"
            raise NetworkError(f"{onnx}: {fault}; export it again")
    return content


def _open_own(sidecar: SideCar, *, where: str, folder: Path) -> Network:
    from stream_seg.network.wrap import wrap_onnx

    if sidecar.onnx is None:
        raise ConfigError(f"{where}: onnx: is required: the path of the network")
    path = folder / sidecar.onnx
    classes = make_classes(sidecar.classes, sidecar.palette, where=where)
    f32, size = wrap_onnx(path, sidecar, where=where)
    return bias_network(Network(path.stem, classes, size, f32), sidecar.prefer, where=f"{where}: prefer")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path}: {error.strerror}") from error
