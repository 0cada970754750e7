"""Detect a wrong input normalisation from batch-norm statistics and from labelled images.

The first batch normalisation stores mean and variance of its input in training; images in another scale differ from
them. Swapped colours may pass that check, because streets are grey, but not the comparison with labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.datasets.labelled import Pairs
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix
from stream_seg.errors import ConfigError
from stream_seg.ops.resize import resize_image
from stream_seg.types import Classes, Image
from stream_seg.zoo.weights.normalise import InputSpec, Normalise

MAX_DEVIATION, MIN_RATIO = 0.25, 1.5
"""An input spec is rejected above this deviation if another spec's is this many times smaller (docs/training.md)."""
IMAGES, LABELLED_IMAGES = 16, 3
"""Images that are compared with the batch-norm statistics, and with labels."""
MIN_GAIN = 0.1
"""An input spec is rejected if another spec's mean IoU on LABELLED_IMAGES is this much higher."""
INPUTS: Mapping[str, InputSpec] = MappingProxyType(
    {
        "imagenet": InputSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "rgb"),
        "unit": InputSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "rgb"),
        "centred": InputSpec((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "rgb"),
        "bytes": InputSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "rgb", 1.0),
        "caffe": InputSpec((103.94, 116.78, 123.68), (1.0, 1.0, 1.0), "bgr", 1.0),
    }
)
"""Common input specs: torchvision's, 0 to 1, -1 to 1, 0 to 255, and 0 to 255 less the mean of ImageNet."""


def refuse_misfit(
    net: nn.Module, spec: InputSpec, images: Sequence[Image], *, where: str, size: tuple[int, int] | None = None
) -> None:
    """Raise ConfigError if `images` match the batch-norm statistics of `net` far better under another input spec.

    Images are resized to `size` = (height, width), if given. Without images or batch normalisation nothing is checked.
    """
    if not images or _first_norm(net) is None:
        return
    places = np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)
    samples = [_resize(images[place], size) for place in places]
    deviation = norm_deviation(net, spec, samples)
    if deviation <= MAX_DEVIATION:
        return
    others = [other for one in (spec, *INPUTS.values()) for other in (one, swap_colours(one))]
    least, best = min((norm_deviation(net, other, samples), place) for place, other in enumerate(others))
    if least * MIN_RATIO < deviation:
        raise ConfigError(
            f"{where}: trained on another input than {spec} ({deviation:.1f} deviations off);"
            f" {others[best]} fits better ({least:.1f})"
        )


def refuse_worse(
    net: nn.Module,
    spec: InputSpec,
    pairs: Pairs,
    classes: Classes,
    *,
    where: str,
    size: tuple[int, int] | None = None,
) -> None:
    """Raise ConfigError if `net` labels `pairs` far better under another input spec; `size` as in refuse_misfit."""
    places = [int(place) for place in np.linspace(0, len(pairs) - 1, min(LABELLED_IMAGES, len(pairs)))]
    samples = Pairs([_resize(pairs.images[place], size) for place in places], [pairs.labels[place] for place in places])
    miou = score_labels(net, spec, samples, classes)
    others = [swap_colours(spec), *(other for other in INPUTS.values() if other != spec)]
    best, place = max((score_labels(net, other, samples, classes), -place) for place, other in enumerate(others))
    if best > miou + MIN_GAIN:
        raise ConfigError(
            f"{where}: trained on another input than {spec} (mean IoU {100 * miou:.0f} on {len(samples)} images);"
            f" {others[-place]} fits better ({100 * best:.0f})"
        )


@torch.no_grad()
def score_labels(net: nn.Module, spec: InputSpec, pairs: Pairs, classes: Classes) -> float:
    """Return the mean IoU of `net` on `pairs` with images normalised by `spec`, over the classes that occur."""
    normalise, training = Normalise(spec), net.training
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    net.eval()
    try:
        for image, truth in zip(pairs.images, pairs.labels, strict=True):
            scores = net(normalise(torch.from_numpy(image)[None]))
            labels = F.interpolate(scores, size=truth.shape, mode="bilinear").argmax(1)[0].numpy().astype(np.uint8)
            matrix += confusion_matrix(truth, labels, classes=len(classes))
    finally:
        net.train(training)
    return compute_metrics(matrix, classes)["miou"] or 0.0


@torch.no_grad()
def norm_deviation(net: nn.Module, spec: InputSpec, images: Sequence[Image]) -> float:
    """Return the distance of the first batch normalisation's input from its statistics, as a mean over channels.

    It is the shift of the mean in standard deviations, plus the logarithm of the ratio of standard deviations.
    """
    layer = _first_norm(net)
    assert layer is not None, "the network has no batch normalisation"
    assert layer.running_mean is not None, "it stores no mean"
    assert layer.running_var is not None, "it stores no variance"
    means: list[Tensor] = []
    squares: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        means.append(inputs[0].mean((0, 2, 3)))
        squares.append(inputs[0].square().mean((0, 2, 3)))

    hook, training = layer.register_forward_pre_hook(record), net.training
    net.eval()
    normalise = Normalise(spec)
    try:
        for image in images:
            net(normalise(torch.from_numpy(image)[None]))
    finally:
        hook.remove()
        net.train(training)
    mean = torch.stack(means).mean(0)
    deviation = (torch.stack(squares).mean(0) - mean.square()).clamp(min=1e-12).sqrt()
    stored = (layer.running_var + layer.eps).sqrt()
    shift = ((mean - layer.running_mean).abs() / stored).mean()
    stretch = (deviation / stored).log().abs().mean()
    return float(shift + stretch)


def _resize(image: Image, size: tuple[int, int] | None) -> Image:
    return image if size is None else resize_image(image, size)


def _first_norm(net: nn.Module) -> nn.BatchNorm2d | None:
    norms = (layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None)
    return next(norms, None)


def swap_colours(spec: InputSpec) -> InputSpec:
    """Return the spec with the channels in the opposite order."""
    return replace(spec, colour="bgr" if spec.colour == "rgb" else "rgb", mean=spec.mean[::-1], std=spec.std[::-1])
