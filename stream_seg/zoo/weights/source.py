"""Open `weights:` of a recipe or of `stream-seg export`: tensors, their input spec and their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import expand_home, is_file
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.network.sidecar import SideCar, make_classes
from stream_seg.schema.validation import validate
from stream_seg.schema.yaml import read_yaml
from stream_seg.types import Classes
from stream_seg.zoo.weights.files import ABOUT, SUFFIXES, match_names, read_weights, unwrap_weights
from stream_seg.zoo.weights.normalise import InputSpec
from stream_seg.zoo.weights.published import fetch_published


@dataclass(frozen=True)
class Weights:
    """Weights from `source`. `spec`, `classes` and `size` (height, width) are None if neither the weights nor their
    side-car state them; `sidecar` is the path of that side-car.

    `prefer` is added to the scores of classes, by name, in an export.
    """

    source: str
    state: Mapping[str, Tensor] = field(repr=False)
    spec: InputSpec | None = None
    classes: Classes | None = None
    size: tuple[int, int] | None = None
    sidecar: Path | None = None
    prefer: Mapping[str, float] = field(default_factory=dict)


def describe_weights(
    network: str,
    spec: InputSpec,
    classes: Classes,
    size: tuple[int, int] | None,
    prefer: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the content of the key ABOUT in files of this project, for `open_weights`."""
    return {
        "network": network,
        **({} if size is None else {"size": list(size)}),
        "colour": spec.colour,
        "scale": spec.scale,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "classes": list(classes.names),
        "palette": [list(colour) for colour in classes.colours],
        **({"prefer": dict(prefer)} if prefer else {}),
    }


def open_weights(source: str | Path, *, network: str) -> Weights:
    """Open weights for `network`: a file with its side-car NAME.pt.yaml, a name of torchvision's, or a shipped network.

    Raises NetworkError for a wrong file, ConfigError for an unknown name and a wrong side-car.
    """
    path = expand_home(Path(source))
    if str(source) in NETWORKS and not is_file(path, error=NetworkError):
        if str(source) != network:
            raise ConfigError(f"weights: {source} is for the network {source}, not {network}")
        path = SHIPPED / f"{source}.safetensors"
    if path.suffix.lower() not in SUFFIXES and not is_file(path, error=NetworkError):
        published = fetch_published(str(source), network=network)
        state = unwrap_weights(read_weights(published.path), where=str(published.path))
        return Weights(str(source), state, published.spec, published.classes)
    content = read_weights(path)
    # not NAME.yaml, which is the side-car of a NAME.onnx made from these weights
    sidecar = path.with_name(f"{path.name}.yaml")
    weights = Weights(str(source), unwrap_weights(content, where=str(path)), sidecar=sidecar)
    has_sidecar = is_file(sidecar, error=NetworkError)
    if isinstance(content.get(ABOUT), Mapping):
        weights = _apply_about(weights, content[ABOUT], network=network)
        return _apply_second(weights, sidecar) if has_sidecar else weights
    return _apply_sidecar(weights, read_yaml(sidecar), where=str(sidecar)) if has_sidecar else weights


def average_weights(weights: Sequence[Weights]) -> Weights:
    """Return the mean of weights with a common start, which often generalises better than any of them.

    A uniform soup (Wortsman et al., ICML 2022, section 2); the mean of weights with different starts is useless. Raises
    NetworkError if layers differ, ConfigError if input specs or classes do.
    """
    # its input spec and classes hold for the weights that state none
    first = next((one for one in weights if one.spec is not None), weights[0])
    weights = [replace(one, state=match_names(one.state, first.state)) for one in weights]
    for other in weights:
        if _shapes(other) != _shapes(first):
            raise NetworkError(f"{other.source}: its layers differ from those of {first.source}; a mean needs the same")
        if other.spec is not None and (other.spec, other.classes) != (first.spec, first.classes):
            raise ConfigError(f"{other.source}: its input or classes differ from those of {first.source}")
    if len(weights) == 1:
        return first
    state = {
        name: torch.stack([one.state[name].float() for one in weights]).mean(0) if value.is_floating_point() else value
        for name, value in first.state.items()
    }
    return replace(first, source=" + ".join(one.source for one in weights), state=state)


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.state.items()}


def _apply_about(weights: Weights, about: Mapping[str, Any], *, network: str) -> Weights:
    """Add what a file of this project states about its weights. Raises NetworkError if it is for another network."""
    keys = dict(about)
    origin = keys.pop("network", network)
    if origin != network:
        raise NetworkError(f"{weights.source}: weights of {origin}, not of {network}")
    return _apply_sidecar(weights, keys, where=weights.source)


def _apply_second(weights: Weights, path: Path) -> Weights:
    """Add size and prefer of a side-car to weights that state the rest. Raises ConfigError for a contradiction."""
    other = _apply_sidecar(weights, read_yaml(path), where=str(path))
    if (other.spec or weights.spec, other.classes) != (weights.spec, weights.classes):
        raise ConfigError(f"{path}: contradicts {weights.source}, which states {weights.spec}; remove the side-car")
    return replace(weights, size=other.size or weights.size, prefer=other.prefer or weights.prefer)


def _apply_sidecar(weights: Weights, content: Any, *, where: str) -> Weights:
    sidecar = validate(SideCar, content, where=where)
    keys = sidecar.model_fields_set
    for key in ("onnx", "layout", "heads"):
        if key in keys:
            raise ConfigError(f"{where}: {key}: describes an ONNX; it is not allowed for weights")
    spec = None
    if keys & {"mean", "std", "colour", "scale"}:
        if not keys >= {"mean", "std"}:
            raise ConfigError(
                f"{where}: colour, scale, mean and std need both mean and std; without normalisation these are"
                " [0, 0, 0] and [1, 1, 1]"
            )
        spec = InputSpec(sidecar.mean, sidecar.std, sidecar.colour, sidecar.scale)
    classes = make_classes(sidecar.classes, sidecar.palette, where=where)
    return replace(weights, spec=spec, classes=classes, size=sidecar.size, prefer=sidecar.prefer)
