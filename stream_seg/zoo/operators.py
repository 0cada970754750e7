"""Operators that the networks share, in a form that every backend can build.

    enlarging  transposed convolution with bilinear weights, max unpooling by indices
    context    atrous convolution

"Every backend" means no MaxPool with a second output, no MaxUnpool, NonZero, If or Loop in the exported graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn_relu(
    c_in: int, c_out: int, kernel: int = 3, *, stride: int = 1, rate: int = 1, bias: bool = False
) -> nn.Sequential:
    """Build a padded convolution of the atrous `rate` with batch normalisation and ReLU."""
    conv = atrous(c_in, c_out, rate, kernel=kernel, stride=stride, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


def atrous(c_in: int, c_out: int, rate: int, *, kernel: int = 3, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Build a convolution whose taps are `rate` pixels apart; an odd kernel keeps the size at stride 1.

    Its receptive field is rate * (kernel - 1) + 1 pixels. In a stack with rates 1, 2, 4, ... the receptive field
    doubles with every layer while each layer adds the same number of weights.
    """
    return nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=rate * (kernel // 2), dilation=rate, bias=bias)


def bilinear_transposed(channels: int, factor: int, *, padding: int = 0) -> nn.ConvTranspose2d:
    """Build a learnable transposed convolution that starts as bilinear interpolation of each channel."""
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=padding, bias=False)
    distance = (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(channels), range(channels)] = torch.outer(1 - distance, 1 - distance)
    return layer


def crop(x: Tensor, like: Tensor, offset: int = 0) -> Tensor:
    """Return the part of `x` of the size of `like`, from `offset` on down and right."""
    height, width = like.shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]


def max_pool_with_indices(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool 2x2 maxima, rounding sizes up. Return them with their indices in the windows, as float (N, C, h, w).

    A window is numbered 0 1 / 2 3, and the first of equal values wins. Indices are computed by arithmetic: after a ReLU
    most windows hold equal zeros, and backends differ in how ArgMax breaks ties.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")  # a copy never wins: it comes after its original
    pooled = F.max_pool2d(x, 2)
    windows = F.pixel_unshuffle(x, 2).reshape(-1, x.shape[1], 4, *pooled.shape[-2:])
    places = torch.arange(4, dtype=x.dtype, device=x.device).reshape(4, 1, 1)
    indices = torch.where(windows == pooled.unsqueeze(2), places, 4).amin(2)
    return pooled, indices


def max_unpool(x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    """Put every sample back at its index, with zeros elsewhere; `size` = (height, width) before the pooling."""
    places = torch.arange(4, dtype=x.dtype, device=x.device).reshape(4, 1, 1)
    windows = torch.where(indices.unsqueeze(2) == places, x.unsqueeze(2), 0)
    return F.pixel_shuffle(windows.flatten(1, 2), 2)[..., : size[0], : size[1]]
