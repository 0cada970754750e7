"""A network, ready for any engine: its interchange ONNX, its classes, its input size. And where it comes from.

    network: road                        a name of `stream_seg.zoo.NETWORKS`: ONNX and side-car are package data
    network: runs/road.onnx              an exported network: road.json beside it says what it is
    network: models/mine.onnx            a network of the user's own: mine.yaml beside it (`SideCar`)
    network: configs/networks/mine.yaml  the same; its key `onnx` says where the network is, seen from the YAML's folder
    network: {onnx: mine.onnx, classes: [...]}   the same, written where it is used; seen from the working directory

The interchange ONNX takes `image` uint8 (N, H, W, 3) BGR and gives `scores` float32 (N, C, h, w) and `labels` uint8
(N, H, W), or `labels` alone. Exported networks are such; for the user's own, `interchange.graft` makes one of it.
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
from stream_seg.files import is_file
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.network.sidecar import Export, Report, SideCar, coloured
from stream_seg.redact import quoted, without_secrets
from stream_seg.schema.validation import require_mapping, validate
from stream_seg.schema.yaml import parse_yaml
from stream_seg.types import Classes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """`size` is the input's (height, width); `f32` and, if shipped, `int8` are the interchange ONNX, serialised.

    `int8_report` is what the accuracy gate said of the int8 form when it was made; None where nothing was compared.
    """

    name: str
    classes: Classes
    size: tuple[int, int]
    f32: bytes = field(repr=False)
    int8: bytes | None = field(repr=False, default=None)
    int8_report: Report | None = field(repr=False, hash=False, default=None)


def is_network(source: str) -> bool:
    """Whether it reads like a network: a known name or the path of a file of a known kind. Opens nothing."""
    return source in NETWORKS or Path(source).suffix.lower() in (".onnx", ".yaml", ".yml", ".json")


def unknown(source: str) -> str:
    """The sentence that refuses what is no network."""
    return (
        f"unknown network {quoted(source)}; known: {', '.join(NETWORKS)}, or the path of an .onnx, .yaml or .json file"
    )


def open_network(source: str | Path | Mapping[str, Any], *, size: tuple[int, int] | None = None) -> Network:
    """The network that `network:` names. Raises NetworkError for its files, ConfigError for a name
    that there is none of and for what a side-car says.

    `size` = (height, width) is in place of what its side-car says; an exported network is made to take it.
    """
    network = _opened(source, size)
    if size is None or network.size == size:
        return network
    from stream_seg.network.resize import nearest_size, refuse_size

    other = resized(network, size)
    try:
        refuse_size(other.f32, network.size, size, name=network.name)
    except NetworkError as error:
        near = nearest_size(network.f32, network.size, size)
        if near is None:
            raise
        raise NetworkError(f"{error}; {near[0]}x{near[1]} does") from error
    return other


def resized(network: Network, size: tuple[int, int]) -> Network:
    """`network` taking pictures of `size` = (height, width), multiples of its strides; see `interchange.resize`.

    The same weights: smaller, it takes a fraction of the time, and sees less of small things; larger, the reverse.
    """
    from stream_seg.network.resize import resized_onnx

    f32 = resized_onnx(network.f32, network.size, size)
    int8 = None if network.int8 is None else resized_onnx(network.int8, network.size, size)
    return replace(network, size=size, f32=f32, int8=int8, int8_report=None)  # it was judged at the other size


def preferring(network: Network, prefer: Mapping[str, float], *, where: str) -> Network:
    """`network` with `prefer` added to the scores of classes, by name, on top of what an export gave them.

    Raises ConfigError for a name that is no class of it, NetworkError where it has no scores.
    """
    if not prefer:
        return network
    from stream_seg.network.onnx_builder import preferred_onnx

    added = [0.0] * len(network.classes)
    for name, number in prefer.items():
        added[network.classes.index(name, where=where)] = number
    f32 = preferred_onnx(network.f32, added, name=network.name)
    int8 = None if network.int8 is None else preferred_onnx(network.int8, added, name=network.name)
    return replace(network, f32=f32, int8=int8, int8_report=None)  # it was judged without


def save_network(network: Network, path: Path) -> Path:
    """Write `network` as PATH (.onnx), its int8 form and side-car beside it, for `open_network`; returns PATH."""
    said: dict[str, Any] = {
        "name": network.name,
        "size": network.size,
        "classes": network.classes.names,
        "palette": network.classes.colours,
        "sha256": hashlib.sha256(network.f32).hexdigest(),
    }
    path.write_bytes(network.f32)
    if network.int8 is not None:
        path.with_stem(f"{path.stem}_int8").write_bytes(network.int8)
        said["int8"] = {"sha256": hashlib.sha256(network.int8).hexdigest(), "report": network.int8_report}
    path.with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")
    return path


def _opened(source: str | Path | Mapping[str, Any], size: tuple[int, int] | None) -> Network:
    fixed = {} if size is None else {"size": size}
    if isinstance(source, Mapping):
        return _own(validate(SideCar, {**source, **fixed}, where="network"), where="network", folder=Path())
    if str(source) in NETWORKS:
        return _exported(SHIPPED / NETWORKS[str(source)])
    if not is_network(str(source)):
        raise ConfigError(unknown(str(source)))
    path = Path(source)
    if not is_file(path, error=NetworkError):
        raise NetworkError(
            f"{without_secrets(str(source))}: no such file; a network is a name ({', '.join(NETWORKS)}) or a file"
        )
    sidecar = path if path.suffix.lower() != ".onnx" else _beside(path)
    if sidecar.suffix.lower() == ".json":
        return _exported(sidecar)
    said = parse_yaml(_read(sidecar).decode("utf-8", "replace"), where=str(sidecar))
    require_mapping(said, SideCar.model_fields, where=str(sidecar))
    beside = {"onnx": sidecar.with_suffix(".onnx").name}
    said = {**beside, **said} if path == sidecar else {**said, **beside}  # who names the ONNX means that file
    return _own(validate(SideCar, {**said, **fixed}, where=str(sidecar)), where=str(sidecar), folder=sidecar.parent)


def _beside(onnx: Path) -> Path:
    for suffix in (".yaml", ".yml", ".json"):
        if onnx.with_suffix(suffix).is_file():
            return onnx.with_suffix(suffix)
    raise NetworkError(
        f"{onnx}: no side-car; write {onnx.with_suffix('.yaml').name} beside it, at least `classes: [...]`"
    )


def _exported(sidecar: Path) -> Network:
    export = validate(Export, _read(sidecar), where=str(sidecar))
    f32 = _described(sidecar.with_suffix(".onnx"), export.sha256, sidecar)
    classes = coloured(export.classes, export.palette, where=str(sidecar))
    network = Network(export.name, classes, export.size, f32)
    int8 = sidecar.with_name(f"{sidecar.stem}_int8.onnx")
    if not int8.is_file():
        return network
    if export.int8 is None or export.int8.sha256 is None:
        log.warning("%s: left out: %s has no accuracy report of it; export it again", int8, sidecar.name)
        return network
    return replace(network, int8=_described(int8, export.int8.sha256, sidecar), int8_report=export.int8.report)


def _described(onnx: Path, sha256: str, sidecar: Path) -> bytes:
    content = _read(onnx)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise NetworkError(f"{onnx}: not the file that {sidecar.name} describes (its SHA-256 differs); export it again")
    if _has_external_data(content):
        raise NetworkError(
            f"{onnx}: has weights in other files, which {sidecar.name} does not describe; export it again"
        )
    return content


def _has_external_data(content: bytes) -> bool:
    if b"location" not in content:  # as every such tensor says; onnx, which knows, takes a while to load
        return False
    from stream_seg.network.onnx_file import has_external_data

    return has_external_data(content)


def _own(sidecar: SideCar, *, where: str, folder: Path) -> Network:
    from stream_seg.network.wrap import interchange

    if sidecar.onnx is None:
        raise ConfigError(f"{where}: onnx: is required: the path of the network")
    path = folder / sidecar.onnx
    classes = coloured(sidecar.classes, sidecar.palette, where=where)
    f32, size = interchange(path, sidecar, where=where)
    return preferring(Network(path.stem, classes, size, f32), sidecar.prefer, where=f"{where}: prefer")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path}: {error.strerror}") from error
