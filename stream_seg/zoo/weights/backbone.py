"""The encoder of a network, begun with what a classifier learnt from ImageNet; the rest of the network begins anew."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import at_home, is_file
from stream_seg.zoo.backbones import VGG16, ResNet
from stream_seg.zoo.weights.files import SUFFIXES, read_weights, unwrapped
from stream_seg.zoo.weights.fit import fit
from stream_seg.zoo.weights.normalise import InputSpec
from stream_seg.zoo.weights.published import published_backbone

CLASSIFIER = ("fc.", "classifier.")
"""What a classifier's names begin with where its features end."""


def load_backbone(net: nn.Module, source: str, *, network: str) -> InputSpec | None:
    """Load a classifier's features, a file or a name of torchvision's, into the encoder of `net`.

    Returns what they expect of a picture; None for a file, which cannot say it. Raises ConfigError for a name that is
    none and for a network whose encoder is none of torchvision's, NetworkError for weights that do not fit.
    """
    encoder = next((module for module in net.modules() if isinstance(module, VGG16 | ResNet)), None)
    if encoder is None:
        raise ConfigError(f"backbone: {network} has none of torchvision's VGG16 or ResNets as its encoder")
    path, spec = at_home(Path(source)), None
    if path.suffix.lower() not in SUFFIXES and not is_file(path, error=NetworkError):
        path, spec = published_backbone(source, model=encoder.model, network=network)
    given = unwrapped(read_weights(path), where=str(path))
    ours = {theirs: own for own, theirs in encoder.published().items()}
    features = {ours.get(name, name): value for name, value in given.items() if not name.startswith(CLASSIFIER)}
    fit(encoder, features, classes=None, where=f"{source}, into the {encoder.model} of {network}")
    return spec
