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
from stream_seg.files.writing import expand_home, is_file
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.network.sidecar import SideCar, make_classes
from stream_seg.schema.validation import validate
from stream_seg.schema.yaml import read_yaml
from stream_seg.types import Classes
from stream_seg.zoo import BUILDERS
from stream_seg.zoo.weights.files import ABOUT, SUFFIXES, match_names, read_weights, unwrap_weights
from stream_seg.zoo.weights.input_spec import InputSpec
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
    path, name = expand_home(Path(source)), str(source)
    if name in NETWORKS and not is_file(path, error=NetworkError):
        if name != network:
            raise ConfigError(f"weights: {name} is for the network {name}, not {network}")
        path = SHIPPED / f"{name}.safetensors"
    if path.suffix.lower() not in SUFFIXES and not is_file(path, error=NetworkError):
        hint = f"; {network} is shipped with this package" if network in NETWORKS else ""
        model = BUILDERS[network].keys.get("model")
        path, spec, categories = fetch_published(name, model, key="weights", network=network, hint=hint)
        names = ["background" if category == "__background__" else category for category in categories]
        classes = make_classes(names, None, where=name)
        return Weights(name, unwrap_weights(read_weights(path), where=str(path)), spec, classes)
    content = read_weights(path)
    # not NAME.yaml, which is the side-car of a NAME.onnx made from these weights
    sidecar = path.with_name(f"{path.name}.yaml")
    weights = Weights(name, unwrap_weights(content, where=str(path)), sidecar=sidecar)
    if isinstance(content.get(ABOUT), Mapping):
        about = dict(content[ABOUT])
        origin = about.pop("network", network)
        if origin != network:
            raise NetworkError(f"{name}: weights of {origin}, not of {network}")
        weights = _apply_sidecar(weights, about, where=name)
    if not is_file(sidecar, error=NetworkError):
        return weights
    other = _apply_sidecar(weights, read_yaml(sidecar), where=str(sidecar))
    if weights.classes and (other.spec, other.classes) != (weights.spec, weights.classes):
        raise ConfigError(f"{sidecar}: contradicts {name}, which states {weights.spec}; remove the side-car")
    return replace(other, size=other.size or weights.size, prefer=other.prefer or weights.prefer)


def average_weights(weights: Sequence[Weights]) -> Weights:
    """Return the mean of weights with a common start, which often generalises better than any of them.

    A uniform soup (Wortsman et al., ICML 2022, section 2); the mean of weights with different starts is useless. Raises
    NetworkError if layers differ, ConfigError if input specs or classes do.
    """
    # its input spec and classes hold for the weights that state none
    first = next((one for one in weights if one.spec is not None), weights[0])
    weights = [replace(one, state=match_names(one.state, first.state)) for one in weights]
    shapes = {name: value.shape for name, value in first.state.items()}
    for other in weights:
        if {name: value.shape for name, value in other.state.items()} != shapes:
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


def _apply_sidecar(weights: Weights, content: Any, *, where: str) -> Weights:
    """Add what a side-car states to weights; they keep their input spec if it states none. Raises ConfigError."""
    sidecar = validate(SideCar, content, where=where)
    spec, keys = weights.spec, sidecar.model_fields_set
    for key in ("onnx", "layout", "heads"):
        if key in keys:
            raise ConfigError(f"{where}: {key}: describes an ONNX; it is not allowed for weights")
    if keys & {"mean", "std", "colour", "scale"}:
        if not keys >= {"mean", "std"}:
            hint = "without normalisation these are [0, 0, 0] and [1, 1, 1]"
            raise ConfigError(f"{where}: colour, scale, mean and std need both mean and std; {hint}")
        spec = InputSpec(sidecar.mean, sidecar.std, sidecar.colour, sidecar.scale)
    classes = make_classes(sidecar.classes, sidecar.palette, where=where)
    return replace(weights, spec=spec, classes=classes, size=sidecar.size, prefer=sidecar.prefer)
