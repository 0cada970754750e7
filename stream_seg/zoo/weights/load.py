"""Load weights into a network strictly: all of them, or an error that counts and names those that do not fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files.writing import expand_home, is_file
from stream_seg.zoo.backbones import VGG16, ResNet
from stream_seg.zoo.weights.files import SUFFIXES, format_names, match_names, read_weights, unwrap_weights
from stream_seg.zoo.weights.input_spec import InputSpec
from stream_seg.zoo.weights.published import fetch_published

CLASSIFIER = ("fc.", "classifier.")
"""Prefixes of a classifier's layers after its features."""


def load_backbone(net: nn.Module, source: str, *, network: str) -> InputSpec | None:
    """Load a classifier's features, from a file or by torchvision's name, into the encoder of `net`; the rest is new.

    Returns their input spec, or None for a file, which does not state it. Raises ConfigError for an unknown name and
    for a network without an encoder of torchvision's, NetworkError for weights that do not fit.
    """
    encoder = next((module for module in net.modules() if isinstance(module, VGG16 | ResNet)), None)
    if encoder is None:
        raise ConfigError(f"backbone: {network} has no VGG16 or ResNet of torchvision as its encoder")
    path, spec = expand_home(Path(source)), None
    if path.suffix.lower() not in SUFFIXES and not is_file(path, error=NetworkError):
        path, spec, _ = fetch_published(source, encoder.model, key="backbone", network=network)
    state = unwrap_weights(read_weights(path), where=str(path))
    own_names = {name: own for own, name in encoder.torchvision_names().items()}
    features = {own_names.get(name, name): value for name, value in state.items() if not name.startswith(CLASSIFIER)}
    load_weights(encoder, features, classes=None, where=f"{source}, into the {encoder.model} of {network}")
    return spec


def load_weights(
    net: nn.Module,
    state: Mapping[str, Tensor],
    *,
    classes: int | None,
    where: str,
    skip: Collection[str] = (),
    hint: str = "",
) -> None:
    """Load `state` into `net`, which was built for `classes` (None: it has none), except the weights named in `skip`.

    Raises NetworkError for missing and unexpected names and for shapes that differ; `hint` ends the message when they
    differ by the number of classes alone. `num_batches_tracked` may be missing: files written before torch 0.4.1 have
    none, and only training counts with it.
    """
    own = net.state_dict()
    state = match_names(state, own)
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    foreign = [name for name in state if name not in own]
    if missing or foreign:
        parts = [f"{len(missing)} of {len(own)} names missing ({format_names(missing)})"] if missing else []
        parts += [f"{len(foreign)} of {len(state)} names unexpected ({format_names(foreign)})"] if foreign else []
        raise NetworkError(f"{where}: not weights of this network: {'; '.join(parts)}")
    different = [name for name, value in state.items() if value.shape != own[name].shape and name not in skip]
    counts = {_class_count(state[name], own[name], classes) for name in different}
    if different and (skip or len(counts) > 1 or None in counts):
        shapes = [f"{name} {_format_shape(state[name])}, here {_format_shape(own[name])}" for name in different]
        faulty = f"{len(shapes)} shapes differ: {format_names(shapes, limit=2)}"
        raise NetworkError(f"{where}: not weights of this network: {faulty}")
    if different:
        layers = format_names(different)
        raise NetworkError(f"{where}: weights of {counts.pop()} classes for a network of {classes} ({layers}){hint}")
    net.load_state_dict({name: own[name] if name in skip else state.get(name, own[name]) for name in own})


def _class_count(value: Tensor, own: Tensor, classes: int | None) -> int | None:
    """Return the number of classes of the network that `value` belongs to, if that alone explains its shape.

    A dimension that differs is the number of classes or a multiple of it (as in the dilated context module).
    """
    if own.ndim != value.ndim or classes is None:
        return None
    pairs = [(here, there) for here, there in zip(own.shape, value.shape, strict=True) if here != there]
    counts = {there * classes / here for here, there in pairs}
    count = counts.pop()
    explained = not counts and count.is_integer() and all(here % classes == 0 for here, _ in pairs)
    return int(count) if explained else None


def _format_shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"
