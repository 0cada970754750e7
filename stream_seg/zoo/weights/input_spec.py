"""The input that weights expect: its normalisation, and the detection of a wrong one.

A wrong colour order or scale costs accuracy, not an error. The first batch normalisation stores mean and variance of
its input in training; images in another scale differ from them. Swapped colours may pass that check, because streets
are grey, but not the comparison with labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stream_seg.datasets.labelled import Pairs
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix
from stream_seg.errors import ConfigError
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.ops.resize import resize_image
from stream_seg.types import Classes, Image, Labels

Three = tuple[float, ...]
Predict = Callable[[Image, tuple[int, int]], Labels]
"""Computes the labels of an image at (height, width)."""
MAX_DEVIATION, MIN_RATIO = 0.25, 1.5
"""An input spec is rejected above this deviation if another spec's is this many times smaller (docs/training.md)."""
IMAGES, LABELLED_IMAGES = 16, 3
"""Images that are compared with the batch-norm statistics, and with labels."""
MIN_GAIN = 0.1
"""An input spec is rejected if another spec's mean IoU on LABELLED_IMAGES is this much higher."""


@dataclass(frozen=True)
class InputSpec:
    """The input of a network: channels (x / scale - mean) / std in the order of `colour`, for x from 0 to 255."""

    mean: Three
    std: Three
    colour: Literal["bgr", "rgb"] = "bgr"
    scale: float = 255.0

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:g}" for value in three) for three in (self.mean, self.std))
        return f"colour {self.colour}, scale {self.scale:g}, mean {mean}, std {std}"

    def in_bgr(self, values: Three) -> Three:
        """Return `mean` or `std` in the order blue, green, red."""
        return values if self.colour == "bgr" else values[::-1]

    def swap_colours(self) -> InputSpec:
        """Return the spec with the channels in the opposite order."""
        return replace(self, colour="bgr" if self.colour == "rgb" else "rgb", mean=self.mean[::-1], std=self.std[::-1])


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


class Normalise(nn.Module):
    """Normalise images: uint8 (N, H, W, 3) BGR to float32 (N, 3, H, W), by one gain and one offset per channel."""

    gain: Tensor
    offset: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.to_rgb = spec.colour == "rgb"
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("gain", (1 / (spec.scale * std)).reshape(1, 3, 1, 1))
        self.register_buffer("offset", (-mean / std).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        # TensorRT takes uint8 only at the input: cast first, then transpose
        x = image.to(self.gain.dtype).permute(0, 3, 1, 2)
        if self.to_rgb:
            x = torch.cat([x[:, 2:], x[:, 1:2], x[:, :1]], dim=1)
        return x * self.gain + self.offset


def refuse_misfit(
    net: nn.Module, spec: InputSpec, images: Sequence[Image], *, where: str, size: tuple[int, int] | None = None
) -> None:
    """Raise ConfigError if `images` match the batch-norm statistics of `net` far better under another input spec.

    `net` is in eval mode. Images are resized to `size` = (height, width), if given. Without images or batch
    normalisation nothing is checked.
    """
    if not images or _first_norm(net) is None:
        return
    samples = [images[place] for place in np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)]
    samples = [resize_image(image, size) if size else image for image in samples]
    deviation = norm_deviation(net, spec, samples)
    if deviation <= MAX_DEVIATION:
        return
    others = [other for one in (spec, *INPUTS.values()) for other in (one, one.swap_colours())]
    least, best = min((norm_deviation(net, other, samples), place) for place, other in enumerate(others))
    if least * MIN_RATIO < deviation:
        better = f"{others[best]} fits better ({least:.1f})"
        raise ConfigError(f"{where}: trained on another input than {spec} ({deviation:.1f} deviations off); {better}")


def refuse_worse(
    net: nn.Module, spec: InputSpec, pairs: Pairs, classes: Classes, *, where: str, size: tuple[int, int] | None = None
) -> None:
    """Raise ConfigError if `net` labels `pairs` far better under another input spec; otherwise as refuse_misfit."""
    places = np.linspace(0, len(pairs) - 1, min(LABELLED_IMAGES, len(pairs))).astype(int)
    samples = Pairs([pairs.images[place] for place in places], [pairs.labels[place] for place in places])
    specs = [spec, spec.swap_colours(), *(other for other in INPUTS.values() if other != spec)]
    mious = [score(torch_predictor(net, one, size), samples, classes)["miou"] or 0.0 for one in specs]
    best = int(np.argmax(mious))
    if mious[best] > mious[0] + MIN_GAIN:
        measured = f"mean IoU {100 * mious[0]:.0f} on {len(samples)} images"
        better = f"{specs[best]} fits better ({100 * mious[best]:.0f})"
        raise ConfigError(f"{where}: trained on another input than {spec} ({measured}); {better}")


def score(predict: Predict, pairs: Pairs, classes: Classes) -> dict[str, Any]:
    """Return the metrics of `stream_seg.datasets.scoring.compute_metrics` for the labels that `predict` computes."""
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    for image, truth in zip(pairs.images, pairs.labels, strict=True):
        matrix += confusion_matrix(truth, predict(image, truth.shape), classes=len(classes))
    return compute_metrics(matrix, classes)


def torch_predictor(net: nn.Module, spec: InputSpec, size: tuple[int, int] | None = None) -> Predict:
    """Return a function that runs `net` in float32 on images, resized to `size` if given, as the pipeline does."""
    device = next(net.parameters()).device
    normalise = Normalise(spec).to(device)

    @torch.inference_mode()
    def predict(image: Image, full_size: tuple[int, int]) -> Labels:
        resized = resize_image(image, size) if size else image
        scores = net(normalise(torch.from_numpy(resized[None]).to(device)))
        return upsampled_argmax(scores[0].float().cpu().contiguous().numpy(), full_size)

    return predict


@torch.no_grad()
def norm_deviation(net: nn.Module, spec: InputSpec, images: Sequence[Image]) -> float:
    """Return the distance of the first batch normalisation's input from its statistics, as a mean over channels.

    It is the shift of the mean in standard deviations, plus the logarithm of the ratio of standard deviations. `net` is
    in eval mode.
    """
    layer, normalise, moments = _first_norm(net), Normalise(spec), list[Tensor]()
    assert layer is not None, "the network has no batch normalisation"

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moments.append(torch.stack([inputs[0].mean((0, 2, 3)), inputs[0].square().mean((0, 2, 3))]))

    with layer.register_forward_pre_hook(record):
        for image in images:
            net(normalise(torch.from_numpy(image)[None]))
    mean, square = torch.stack(moments).mean(0)
    deviation = (square - mean.square()).clamp(min=1e-12).sqrt()
    statistics = layer.state_dict()
    stored = (statistics["running_var"] + layer.eps).sqrt()
    shift = ((mean - statistics["running_mean"]).abs() / stored).mean()
    return float(shift + (deviation / stored).log().abs().mean())


def _first_norm(net: nn.Module) -> nn.BatchNorm2d | None:
    norms = (layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None)
    return next(norms, None)
