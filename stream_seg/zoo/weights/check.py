"""Whether pictures, prepared as said, look to a network as its training pictures did.

The first batch normalisation remembers the mean and the deviation of what came to it, and a picture of another scale
gives other ones. Red for blue may pass there, where streets are grey; labels tell, where there are any.
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
from stream_seg.datasets.scoring import confusion, figures
from stream_seg.errors import ConfigError
from stream_seg.ops.resize import reduced
from stream_seg.types import Classes, Image
from stream_seg.zoo.weights.normalise import InputSpec, Normalise

FAR, CLEARLY = 0.25, 1.5
"""Refused: farther than FAR deviations, where another spec is CLEARLY times nearer. docs/training.md has figures."""
LOOKED_AT, LABELLED = 16, 3
BETTER = 0.1
"""Refused: where the mean IoU of LABELLED pictures is so much higher under another spec."""
INPUTS: Mapping[str, InputSpec] = MappingProxyType(
    {
        "imagenet": InputSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "rgb"),
        "unit": InputSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "rgb"),
        "centred": InputSpec((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "rgb"),
        "bytes": InputSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "rgb", 1.0),
        "caffe": InputSpec((103.94, 116.78, 123.68), (1.0, 1.0, 1.0), "bgr", 1.0),
    }
)
"""What weights commonly expect: torchvision's, 0 to 1, -1 to 1, 0 to 255, and the mean picture of ImageNet."""


def refuse_misfit(
    net: nn.Module, spec: InputSpec, images: Sequence[Image], *, where: str, size: tuple[int, int] | None = None
) -> None:
    """Raise ConfigError where `images` fit `net` far better under another input spec than under `spec`.

    `net` sees them at `size` = (height, width), or as they are.
    """
    if not images or _first_norm(net) is None:
        return
    chosen = [_at(images[i], size) for i in np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).astype(int)]
    here = strangeness(net, spec, chosen)
    if here <= FAR:
        return
    others = [other for one in (spec, *INPUTS.values()) for other in (one, turned(one))]
    near, best = min(((strangeness(net, other, chosen), i) for i, other in enumerate(others)))
    if near * CLEARLY < here:
        raise ConfigError(
            f"{where}: does not expect pictures with {spec} (they are {here:.1f} deviations from what it was trained"
            f" on), but rather {others[best]} ({near:.1f})"
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
    """Raise ConfigError where `net` labels `pairs` far better under another input spec; `size` as in refuse_misfit."""
    chosen = [int(i) for i in np.linspace(0, len(pairs) - 1, min(LABELLED, len(pairs)))]
    few = Pairs([_at(pairs.images[i], size) for i in chosen], [pairs.labels[i] for i in chosen])
    here = agreement(net, spec, few, classes)
    others = [turned(spec), *(other for other in INPUTS.values() if other != spec)]
    best, i = max((agreement(net, other, few, classes), -i) for i, other in enumerate(others))
    if best > here + BETTER:
        raise ConfigError(
            f"{where}: does not expect pictures with {spec} (mean IoU {100 * here:.0f} on {len(few)} of them), but"
            f" rather {others[-i]} ({100 * best:.0f})"
        )


@torch.no_grad()
def agreement(net: nn.Module, spec: InputSpec, pairs: Pairs, classes: Classes) -> float:
    """The mean IoU of what `net` says of pictures prepared as `spec` says, over the classes that occur."""
    prepare, mode = Normalise(spec), net.training
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    net.eval()
    try:
        for image, truth in zip(pairs.images, pairs.labels, strict=True):
            scores = net(prepare(torch.from_numpy(image)[None]))
            said = F.interpolate(scores, size=truth.shape, mode="bilinear").argmax(1)[0].numpy().astype(np.uint8)
            matrix += confusion(truth, said, classes=len(classes))
    finally:
        net.train(mode)
    return figures(matrix, classes)["miou"] or 0.0


@torch.no_grad()
def strangeness(net: nn.Module, spec: InputSpec, images: Sequence[Image]) -> float:
    """How far the first batch normalisation's input is from what it remembers, in its deviations; mean of channels."""
    layer = _first_norm(net)
    assert layer is not None, "the network has no batch normalisation"
    assert layer.running_mean is not None, "it remembers nothing"
    assert layer.running_var is not None, "it remembers nothing"
    means: list[Tensor] = []
    squares: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        means.append(inputs[0].mean((0, 2, 3)))
        squares.append(inputs[0].square().mean((0, 2, 3)))

    hook, mode = layer.register_forward_pre_hook(note), net.training
    net.eval()
    prepare = Normalise(spec)
    try:
        for image in images:
            net(prepare(torch.from_numpy(image)[None]))
    finally:
        hook.remove()
        net.train(mode)
    mean = torch.stack(means).mean(0)
    deviation = (torch.stack(squares).mean(0) - mean.square()).clamp(min=1e-12).sqrt()
    remembered = (layer.running_var + layer.eps).sqrt()
    shift = ((mean - layer.running_mean).abs() / remembered).mean()
    stretch = (deviation / remembered).log().abs().mean()
    return float(shift + stretch)


def _at(image: Image, size: tuple[int, int] | None) -> Image:
    return image if size is None else reduced(image, size)


def _first_norm(net: nn.Module) -> nn.BatchNorm2d | None:
    norms = (layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None)
    return next(norms, None)


def turned(spec: InputSpec) -> InputSpec:
    """The same with the colours the other way round."""
    return replace(spec, colour="bgr" if spec.colour == "rgb" else "rgb", mean=spec.mean[::-1], std=spec.std[::-1])
