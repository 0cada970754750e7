"""Dilated front end and context module: Yu and Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, 2016.

VGG16 without its last two poolings, and a module that enlarges the receptive field without losing resolution.

    image -> conv1 pool conv2 pool conv3 pool conv4 conv5 (rate 2) -> fc6 (7x7, rate 4) -> fc7 -> scores @ 1/8
                                                                                                  |
    context: 3x3 with rates 1 1 2 4 8 16 1 (receptive field 3 5 9 17 33 65 67), then 1x1 <--------+
"""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.zoo.backbones import VGG16, dilate, init_weights
from stream_seg.zoo.operators import atrous

RATES = (1, 1, 2, 4, 8, 16, 1)
# channels of the eight layers, in multiples of the number of classes (table 1 of the paper)
WIDTHS = {"basic": (1, 1, 1, 1, 1, 1, 1, 1), "large": (2, 2, 4, 8, 16, 32, 32, 1)}


class Dilated(nn.Module):
    """The front end with a `context` module, basic or large, or without one.

    Convolutions pad with zeros. In the authors' networks the front end does not pad (the image is mirrored by 186
    pixels instead), and the context module pads its input once, by 33; the weights are the same.
    Input: float (N, 3, H, W), any size. Output: float scores (N, classes, ceil(H/8), ceil(W/8)).
    """

    def __init__(self, classes: int = 21, *, context: Literal["none", "basic", "large"] = "large") -> None:
        super().__init__()
        self.blocks = VGG16()
        dilate(self.blocks[4], 2)
        self.fc6 = nn.Sequential(atrous(512, 4096, 4, kernel=7), nn.ReLU(inplace=True), nn.Dropout())
        self.fc7 = nn.Sequential(nn.Conv2d(4096, 4096, 1), nn.ReLU(inplace=True), nn.Dropout())
        self.score = nn.Conv2d(4096, classes, 1)
        init_weights(self)
        self.context = nn.Identity() if context == "none" else build_context(classes, WIDTHS[context])

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number <= 3:
                x = F.max_pool2d(x, 2, ceil_mode=True)
        scores: Tensor = self.context(self.score(self.fc7(self.fc6(x))))
        return scores


def build_context(classes: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Build the context module, from scores to scores. It starts as the identity on positive scores."""
    channels = [classes * width for width in (1, *widths)]
    layers = [atrous(*pair, rate) for pair, rate in zip(pairwise(channels[:-1]), RATES, strict=True)]
    layers.append(nn.Conv2d(channels[-2], channels[-1], 1))
    for layer in layers:
        init_identity(layer, classes)
    return nn.Sequential(*chain(*((layer, nn.ReLU(inplace=True)) for layer in layers[:-1])), layers[-1])


@torch.no_grad()
def init_identity(layer: nn.Conv2d, classes: int) -> None:
    """Initialise a layer so that its middle tap passes each class's channels on (equations 4 and 5 of the paper).

    One layer scales by c_in / c_out, all layers together by 1. Noise separates the channels of a class with several.
    """
    c_out, c_in, height, width = layer.weight.shape
    layer.weight.normal_(std=0 if c_in == c_out == classes else 1e-3 * classes / c_out)
    same = torch.arange(c_in)[None, :] * classes // c_in == torch.arange(c_out)[:, None] * classes // c_out
    layer.weight[:, :, height // 2, width // 2] += same * (classes / c_out)
    if layer.bias is not None:
        layer.bias.zero_()
