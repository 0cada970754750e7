"""`weights:` as a recipe or `stream-seg export` says it: tensors, what they expect of a picture, and their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import at_home, is_file
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.network.sidecar import SideCar, coloured
from stream_seg.schema.validation import validate
from stream_seg.schema.yaml import read_yaml
from stream_seg.types import Classes
from stream_seg.zoo.weights.files import ABOUT, SUFFIXES, read_weights, renamed, unwrapped
from stream_seg.zoo.weights.normalise import InputSpec
from stream_seg.zoo.weights.published import published


@dataclass(frozen=True)
class Weights:
    """`spec`, `classes` and `size` (height, width) are None where nothing says them; `beside` is where to say it.

    `prefer` is what an export of them adds to the scores of classes.
    """

    source: str
    state: Mapping[str, Tensor] = field(repr=False)
    spec: InputSpec | None = None
    classes: Classes | None = None
    size: tuple[int, int] | None = None
    beside: Path | None = None
    prefer: Mapping[str, float] = field(default_factory=dict)


def about(
    network: str,
    spec: InputSpec,
    classes: Classes,
    size: tuple[int, int] | None,
    prefer: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """What `open_weights` finds under ABOUT in files of this project."""
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
    """Weights for `network` of the zoo: a file, with NAME.pt.yaml beside it (`SideCar`), or a name of torchvision's, or
    of a network that is shipped.

    Raises NetworkError for the file, ConfigError for a name that is none and for a side-car that is wrong.
    """
    path = at_home(Path(source))
    if str(source) in NETWORKS and not is_file(path, error=NetworkError):
        if str(source) != network:
            raise ConfigError(f"weights: {source} are the weights of the network {source}, not of {network}")
        path = SHIPPED / f"{source}.safetensors"
    if path.suffix.lower() not in SUFFIXES and not is_file(path, error=NetworkError):
        known = published(str(source), network=network)
        state = unwrapped(read_weights(known.path), where=str(known.path))
        return Weights(str(source), state, known.spec, known.classes)
    content = read_weights(path)
    weights = Weights(str(source), unwrapped(content, where=str(path)), beside=sidecar_of(path))
    # not NAME.yaml, which is what a NAME.onnx made of them would be described by
    beside = sidecar if is_file(sidecar := sidecar_of(path), error=NetworkError) else None
    if isinstance(content.get(ABOUT), Mapping):
        return _told(weights, content[ABOUT], network=network, beside=beside)
    if beside is None:
        return weights
    said = validate(SideCar, read_yaml(beside), where=str(beside))
    return _with(weights, said, where=str(beside))


def averaged(weights: Sequence[Weights]) -> Weights:
    """The mean of weights that grew from the same ones, which generalises better than any of them.

    A uniform soup (Wortsman et al., ICML 2022, section 2); of weights that began apart it is worth nothing. Raises
    NetworkError where their layers differ, ConfigError where they expect other pictures or mean other classes.
    """
    first = next(
        (one for one in weights if one.spec is not None), weights[0]
    )  # what it says, holds for those that do not
    weights = [replace(one, state=renamed(one.state, first.state)) for one in weights]
    for other in weights:
        if shapes(other.state) != shapes(first.state):
            raise NetworkError(f"{other.source}: has not the same layers as {first.source}: there is no mean of both")
        if other.spec is not None and (other.spec, other.classes) != (first.spec, first.classes):
            raise ConfigError(f"{other.source}: expects other pictures or classes than {first.source}")
    if len(weights) == 1:
        return first
    state = {
        name: torch.stack([one.state[name].float() for one in weights]).mean(0) if value.is_floating_point() else value
        for name, value in first.state.items()
    }
    return replace(first, source=" + ".join(one.source for one in weights), state=state)


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of each layer's weights."""
    return {name: value.shape for name, value in state.items()}


def sidecar_of(path: Path) -> Path:
    """Where it is said what weights expect: NAME.pt.yaml beside NAME.pt."""
    return path.with_name(f"{path.name}.yaml")


def _told(weights: Weights, about: Mapping[str, Any], *, network: str, beside: Path | None) -> Weights:
    said = dict(about)
    made = said.pop("network", network)
    if made != network:
        raise NetworkError(f"{weights.source}: weights of {made}, not of {network}")
    told = _with(weights, validate(SideCar, said, where=weights.source), where=weights.source)
    if beside is not None:
        other = _with(weights, validate(SideCar, read_yaml(beside), where=str(beside)), where=str(beside))
        if (other.spec or told.spec, other.classes) != (told.spec, told.classes):
            raise ConfigError(f"{beside}: contradicts {weights.source}, which says {told.spec}; remove the side-car")
        return replace(told, size=other.size or told.size, prefer=other.prefer or told.prefer)
    return told


def _with(weights: Weights, said: SideCar, *, where: str) -> Weights:
    given = said.model_fields_set
    for key in ("onnx", "layout", "heads"):
        if key in given:
            raise ConfigError(f"{where}: {key}: says what an ONNX is like; weights have no use for it")
    spec = None
    if given & {"mean", "std", "colour", "scale"}:
        if not given >= {"mean", "std"}:
            raise ConfigError(
                f"{where}: mean and std belong together, and colour and scale to them; where nothing is subtracted or"
                " divided they are [0, 0, 0] and [1, 1, 1]"
            )
        spec = InputSpec(said.mean, said.std, said.colour, said.scale)
    classes = coloured(said.classes, said.palette, where=where)
    return replace(weights, spec=spec, classes=classes, size=said.size, prefer=said.prefer)
