"""The road network: a residual U-Net with atrous context, built of dense convolutions only.

U-Net (Ronneberger et al., MICCAI 2015) gives the skips and up-convolutions, ResNet (He et al., CVPR 2016) the blocks,
DeepLab v3 (Chen et al., arXiv 1706.05587) the atrous pyramid with image pooling. Every channel count is a multiple of
32, which is what AMX, VNNI and tensor cores want; there is no depthwise convolution, which none of them wants.

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


def conv(c_in: int, c_out: int, kernel: int = 3, *, stride: int = 1, rate: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; `rate` is the atrous rate."""
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """The basic block of ResNet: two 3x3 convolutions and the identity."""

    def __init__(self, channels: int, *, rate: int = 1) -> None:
        super().__init__()
        self.first = conv(channels, channels, rate=rate)
        self.second = conv(channels, channels, rate=rate)[:2]  # the ReLU follows the sum

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class AtrousPyramid(nn.Module):
    """ASPP: one 1x1 and three atrous 3x3 convolutions side by side, and the pooled image added as context."""

    def __init__(self, channels: int, branch: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv(channels, branch, 1), *(conv(channels, branch, rate=r) for r in rates)])
        self.pooled = nn.Conv2d(channels, channels, 1)
        self.project = conv(branch * (1 + len(rates)), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        local = self.project(torch.cat([branch(x) for branch in self.branches], dim=1))
        return F.relu(local + self.pooled(x.mean(dim=(2, 3), keepdim=True)))


class Decode(nn.Module):
    """Narrow, enlarge by an up-convolution, add a 3x3 convolution of the skip, normalise once.

    What a 3x3 convolution says of the skip and the nearest-enlarged `x`, concatenated, is one of the sums that this can
    learn: for 4/9 of the multiplications on the enlarged side, with nothing enlarged or concatenated in memory.
    """

    def __init__(self, c_in: int, c_skip: int, c_out: int) -> None:
        super().__init__()
        self.narrow = conv(c_in, c_out, 1)
        self.up = nn.ConvTranspose2d(c_out, c_out, 4, stride=2, padding=1, bias=False)
        self.skip = nn.Conv2d(c_skip, c_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        height, width = skip.shape[-2:]  # one less than twice that of x, at most
        enlarged = self.up(self.narrow(x))[..., :height, :width]
        return F.relu(self.norm(enlarged + self.skip(skip)))


class RoadNet(nn.Module):
    """Class scores of a road scene.

    Input: float (N, 3, H, W), normalised; H and W any size, multiples of 16 waste nothing.
    Output: float scores (N, classes, ceil(H/2), ceil(W/2)), the network's own resolution. While training, a pair: these
    and the auxiliary scores (N, classes, ceil(H/16), ceil(W/16)) of the context, which steady the deep layers.
    """

    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        self.stem = conv(3, 32, stride=2)
        self.encode2 = nn.Sequential(conv(32, 64, stride=2), conv(64, 64))
        self.encode3 = nn.Sequential(conv(64, 128, stride=2), Residual(128))
        self.encode4 = nn.Sequential(conv(128, 192, stride=2), Residual(192), Residual(192))
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
