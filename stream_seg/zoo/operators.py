"""The operators that the networks of this folder share, in the form that every backend builds.

    enlarging     transposed convolution with bilinear weights, bilinear resizing, nearest unpooling, bed of nails,
                  max unpooling at the places where the maxima were
    looking wide  atrous convolution, and several of them side by side (ASPP)

"Every backend" means: no MaxPool with a second output, no MaxUnpool, no NonZero, no If, no Loop in the exported graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn_relu(c_in: int, c_out: int, kernel: int = 3, *, rate: int = 1, bias: bool = False) -> nn.Sequential:
    """A convolution that keeps the size, batch normalisation, ReLU. `rate` is the atrous rate."""
    return nn.Sequential(
        atrous(c_in, c_out, rate, kernel=kernel, bias=bias), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
    )


def atrous(c_in: int, c_out: int, rate: int, *, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    """A convolution whose taps are `rate` pixels apart; odd kernels keep the size.

    It sees rate * (kernel - 1) + 1 pixels. Stacked with rates 1, 2, 4, ... the receptive field doubles with every
    layer while each adds the same number of weights.
    """
    return nn.Conv2d(c_in, c_out, kernel, padding=rate * (kernel // 2), dilation=rate, bias=bias)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v3: a 1x1, three atrous 3x3 and the pooled image, concatenated."""

    def __init__(self, c_in: int, c_out: int = 256, *, rates: Sequence[int] = (6, 12, 18)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_bn_relu(c_in, c_out, 1), *(conv_bn_relu(c_in, c_out, rate=r) for r in rates)]
        )
        self.pooled = conv_bn_relu(c_in, c_out, 1)
        self.project = conv_bn_relu(c_out * (len(rates) + 2), c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        image = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        projected: Tensor = self.project(torch.cat([*(branch(x) for branch in self.branches), image], dim=1))
        return projected


def transposed_size(n: int, *, kernel: int, stride: int, padding: int = 0) -> int:
    """Length of what a transposed convolution makes of `n` samples: O = (N - 1) S + K - 2 P."""
    return (n - 1) * stride + kernel - 2 * padding


def bilinear_kernel(factor: int) -> Tensor:
    """The (2f, 2f) kernel with which a transposed convolution of stride f interpolates: (0.25 0.75 0.75 0.25) for 2."""
    away = (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    return torch.outer(1 - away, 1 - away)


def bilinear_transposed(channels: int, factor: int, *, padding: int = 0) -> nn.ConvTranspose2d:
    """A learnable transposed convolution that starts as bilinear interpolation, each channel to itself."""
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=padding, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(channels), range(channels)] = bilinear_kernel(factor)
    return layer


def upsample_bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize to `size` = (height, width); pixel centres are at half integers, as in OpenCV and ONNX half_pixel."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def unpool_nearest(x: Tensor, factor: int = 2) -> Tensor:
    """Repeat every sample in a factor x factor square."""
    return F.interpolate(x, scale_factor=factor, mode="nearest")


def unpool_bed_of_nails(x: Tensor, factor: int = 2) -> Tensor:
    """Put every sample in the upper left corner of a factor x factor square of zeros."""
    nail = torch.zeros(x.shape[1], 1, factor, factor, dtype=x.dtype, device=x.device)
    nail[..., 0, 0] = 1
    return F.conv_transpose2d(x, nail, stride=factor, groups=x.shape[1])


def max_pool_where(x: Tensor) -> tuple[Tensor, Tensor]:
    """2x2 max pooling, rounding up, and where in its window each maximum was: 0 1 / 2 3, as float (N, C, h, w).

    The first of equal values wins, said in arithmetic: after a ReLU most windows hold equal zeros, and the ArgMax of
    each backend breaks a tie its own way.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")  # a copy comes after its original: it never wins
    pooled = F.max_pool2d(x, 2)
    windows = F.pixel_unshuffle(x, 2).reshape(-1, x.shape[1], 4, *pooled.shape[-2:])
    places = torch.arange(4, dtype=x.dtype, device=x.device).reshape(4, 1, 1)
    where = torch.where(windows == pooled.unsqueeze(2), places, 4).amin(2)
    return pooled, where


def max_unpool(x: Tensor, where: Tensor, size: Sequence[int]) -> Tensor:
    """Put every sample back where the maximum was, zeros elsewhere; `size` = (height, width) before the pooling."""
    places = torch.arange(4, dtype=x.dtype, device=x.device).reshape(4, 1, 1)
    windows = torch.where(where.unsqueeze(2) == places, x.unsqueeze(2), 0)
    return F.pixel_shuffle(windows.flatten(1, 2), 2)[..., : size[0], : size[1]]
