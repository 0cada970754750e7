"""A teacher: what a network says of a crop that it may look at more closely than its pupil does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.zoo.weights.normalise import InputSpec, Normalise

Teach = Callable[[Tensor], Tensor]
"""From images uint8 (N, H, W, 3) BGR to scores (N, C, h, w)."""


def teaching(net: nn.Module, spec: InputSpec, *, scales: Sequence[float], device: torch.device) -> Teach:
    """What `net`, which takes pictures as `spec` says, tells of images that it sees enlarged by each of `scales`."""
    net, prepare = net.to(device), Normalise(spec).to(device)

    @torch.no_grad()
    def teach(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return looks_averaged(net, prepare(images), scales)

    return teach


def looks_averaged(net: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]) -> Tensor:
    """The logarithm of the mean of the probabilities of images (N, 3, H, W) enlarged by each of `scales`; as fine as
    the scores of the first."""
    looks: list[Tensor] = []
    for scale in scales:
        size = scaled((images.shape[-2], images.shape[-1]), scale)
        scores = net(F.interpolate(images, size, mode="bilinear", align_corners=False)).float()
        if looks:
            scores = F.interpolate(scores, looks[0].shape[-2:], mode="bilinear", align_corners=False)
        looks.append(scores.softmax(1))
    return torch.stack(looks).mean(0).clamp(min=1e-8).log()


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) in pixels of a picture of `size` enlarged by `scale`."""
    return round(size[0] * scale), round(size[1] * scale)
