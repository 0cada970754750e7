"""The road network: a residual U-Net with atrous context, built of dense convolutions only.

Skips and up-convolutions are those of U-Net (Ronneberger et al., MICCAI 2015), blocks those of ResNet (He et al., CVPR
2016), the atrous pyramid with image pooling that of DeepLab v3 (Chen et al., arXiv 1706.05587). Channel counts are
multiples of 32 and no convolution is depthwise, which suits AMX, VNNI and tensor cores.

    image 3 x H x W
      stem    32 @ 1/2  ---------------------------------------------+
      encode2 64 @ 1/4  -----------------------------+               |
      encode3 128 @ 1/8 ---------------+             |               |
      encode4 192 @ 1/16               |             |               |
      context 192 @ 1/16 -> decode3 64 @ 1/8 -> decode2 32 @ 1/4 -> decode1 32 @ 1/2 -> scores C @ 1/2
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.zoo.operators import conv_bn_relu, crop


class Residual(nn.Module):
    """The basic block of ResNet: two 3x3 convolutions and the identity."""

    def __init__(self, channels: int, *, rate: int = 1) -> None:
        super().__init__()
        self.first = conv_bn_relu(channels, channels, rate=rate)
        self.second = conv_bn_relu(channels, channels, rate=rate)[:2]  # the ReLU follows the sum

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class AtrousPyramid(nn.Module):
    """ASPP: one 1x1 and several atrous 3x3 convolutions in parallel, with image pooling added as context."""

    def __init__(self, channels: int, branch: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_bn_relu(channels, branch, 1), *(conv_bn_relu(channels, branch, rate=r) for r in rates)]
        )
        self.pooled = nn.Conv2d(channels, channels, 1)
        self.project = conv_bn_relu(branch * (1 + len(rates)), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        local = self.project(torch.cat([branch(x) for branch in self.branches], dim=1))
        return F.relu(local + self.pooled(x.mean(dim=(2, 3), keepdim=True)))


class Decode(nn.Module):
    """Reduce channels, enlarge by an up-convolution, add a 3x3 convolution of the skip, normalise once.

    It can represent any 3x3 convolution of the nearest-enlarged `x` concatenated with the skip, with 4/9 of the
    multiplications on the enlarged side and no enlarged or concatenated copy in memory.
    """

    def __init__(self, c_in: int, c_skip: int, c_out: int) -> None:
        super().__init__()
        self.narrow = conv_bn_relu(c_in, c_out, 1)
        self.up = nn.ConvTranspose2d(c_out, c_out, 4, stride=2, padding=1, bias=False)
        self.skip = nn.Conv2d(c_skip, c_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        enlarged = crop(self.up(self.narrow(x)), like=skip)  # which has twice the size of x, or one less
        return F.relu(self.norm(enlarged + self.skip(skip)))


class RoadNet(nn.Module):
    """Class scores of a road scene, at half the input's size.

    Input: float (N, 3, H, W), normalised, any size; multiples of 16 waste no computation.
    Output: float scores (N, classes, ceil(H/2), ceil(W/2)). In training mode a pair with auxiliary scores (N, classes,
    ceil(H/16), ceil(W/16)) of the context, which stabilise the deep layers.
    """

    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 32, stride=2)
        self.encode2 = nn.Sequential(conv_bn_relu(32, 64, stride=2), conv_bn_relu(64, 64))
        self.encode3 = nn.Sequential(conv_bn_relu(64, 128, stride=2), Residual(128))
        self.encode4 = nn.Sequential(conv_bn_relu(128, 192, stride=2), Residual(192), Residual(192))
        self.context = AtrousPyramid(192, 64, rates=(2, 4, 8))
        self.decode3 = Decode(192, 128, 64)
        self.decode2 = Decode(64, 64, 32)
        self.decode1 = Decode(32, 32, 32)
        self.score = nn.Conv2d(32, classes, 1)
        self.auxiliary = nn.Conv2d(192, classes, 1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        at2 = self.stem(image)
        at4 = self.encode2(at2)
        at8 = self.encode3(at4)
        at16 = self.context(self.encode4(at8))
        x = self.decode3(at16, at8)
        x = self.decode2(x, at4)
        scores: Tensor = self.score(self.decode1(x, at2))
        return (scores, self.auxiliary(at16)) if self.training else scores
