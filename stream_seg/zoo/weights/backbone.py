"""Start the encoder of a network from a classifier's weights of ImageNet; the other layers stay new."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import expand_home, is_file
from stream_seg.zoo.backbones import VGG16, ResNet
from stream_seg.zoo.weights.files import SUFFIXES, read_weights, unwrap_weights
from stream_seg.zoo.weights.fit import load_weights
from stream_seg.zoo.weights.normalise import InputSpec
from stream_seg.zoo.weights.published import fetch_backbone

CLASSIFIER = ("fc.", "classifier.")
"""Prefixes of a classifier's layers after its features."""


def load_backbone(net: nn.Module, source: str, *, network: str) -> InputSpec | None:
    """Load a classifier's features, from a file or by torchvision's name, into the encoder of `net`.

    Returns their input spec, or None for a file, which does not state it. Raises ConfigError for an unknown name and
    for a network without an encoder of torchvision's, NetworkError for weights that do not fit.
    """
    encoder = next((module for module in net.modules() if isinstance(module, VGG16 | ResNet)), None)
    if encoder is None:
        raise ConfigError(f"backbone: {network} has no VGG16 or ResNet of torchvision as its encoder")
    path, spec = expand_home(Path(source)), None
    if path.suffix.lower() not in SUFFIXES and not is_file(path, error=NetworkError):
        path, spec = fetch_backbone(source, model=encoder.model, network=network)
    state = unwrap_weights(read_weights(path), where=str(path))
    own_names = {name: own for own, name in encoder.torchvision_names().items()}
    features = {own_names.get(name, name): value for name, value in state.items() if not name.startswith(CLASSIFIER)}
    load_weights(encoder, features, classes=None, where=f"{source}, into the {encoder.model} of {network}")
    return spec
