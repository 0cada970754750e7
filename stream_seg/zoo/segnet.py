"""SegNet: Badrinarayanan, Kendall, Cipolla, SegNet: A Deep Convolutional Encoder-Decoder Architecture, PAMI 2017.

DeconvNet without the fully connected layers, which hold nine tenths of its weights. Only the places of the maxima reach
the decoder.

    image -> encode1 -> encode2 -> encode3 -> encode4 -> encode5 (conv1 to conv5 of VGG16)
              | indices   | indices  | indices  | indices  | indices
    scores <- decode1 <- decode2 <- decode3 <- decode4 <- decode5
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from stream_seg.zoo.backbones import VGG16
from stream_seg.zoo.operators import conv_bn_relu, max_pool_with_indices, max_unpool

# decode5 first: the channels before and after each convolution
MIRRORED = ((512, 512, 512, 512), (512, 512, 512, 256), (256, 256, 256, 128), (128, 128, 64), (64, 64))


class SegNet(nn.Module):
    """Class scores at the input's size.

    Input: float (N, 3, H, W), any size. Output: float (N, classes, H, W).
    """

    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        self.encoder = VGG16(batch_norm=True)
        self.decoder = nn.ModuleList(
            nn.Sequential(*(conv_bn_relu(*pair, bias=True) for pair in pairwise(widths))) for widths in MIRRORED
        )
        self.score = nn.Conv2d(64, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x, unpoolings = image, list[tuple[Tensor, torch.Size]]()
        for block in self.encoder:
            features = block(x)
            x, indices = max_pool_with_indices(features)
            unpoolings.append((indices, features.shape[-2:]))
        for block in self.decoder:
            x = block(max_unpool(x, *unpoolings.pop()))
        scores: Tensor = self.score(x)
        return scores
