"""DeconvNet: Noh, Hong, Han, Learning Deconvolution Network for Semantic Segmentation, ICCV 2015.

VGG16 with its fully connected layers, and a mirrored decoder: unpooling puts values back at the places of the maxima,
and deconvolutions fill in the pixels between.

    image -> conv1 -> conv2 -> conv3 -> conv4 -> conv5 -> fc6 (7x7) -> fc7
              | indices | indices | indices | indices | indices         |
    scores <- deconv1 <- deconv2 <- deconv3 <- deconv4 <- deconv5 <- deconv-fc6
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from stream_seg.errors import NetworkError
from stream_seg.zoo.backbones import VGG16
from stream_seg.zoo.operators import max_pool_with_indices, max_unpool

# deconv5 first: the channels before and after each deconvolution
MIRRORED = ((512, 512, 512, 512), (512, 512, 512, 256), (256, 256, 256, 128), (128, 128, 64), (64, 64, 64))
SMALLEST = 193  # 7 cells remain after five poolings that round up


class DeconvNet(nn.Module):
    """Class scores at the input's size.

    Input: float (N, 3, H, W); 224x224 in the paper, larger sizes run convolutionally, and each side must be at least
    193 (NetworkError). Output: float (N, classes, H, W).
    """

    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.encoder = VGG16(batch_norm=True)
        self.fc6 = nn.Sequential(nn.Conv2d(512, 4096, 7), nn.BatchNorm2d(4096), nn.ReLU(inplace=True))
        self.fc7 = nn.Sequential(nn.Conv2d(4096, 4096, 1), nn.BatchNorm2d(4096), nn.ReLU(inplace=True))
        self.deconv_fc6 = deconv_bn_relu(4096, 512, kernel=7, padding=0)
        self.decoder = nn.ModuleList(
            nn.Sequential(*(deconv_bn_relu(*pair) for pair in pairwise(widths))) for widths in MIRRORED
        )
        self.score = nn.Conv2d(64, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST:
            raise NetworkError(f"DeconvNet: {height}x{width} is too small; each side must be at least {SMALLEST}")
        x, unpoolings = image, list[tuple[Tensor, torch.Size]]()
        for block in self.encoder:
            features = block(x)
            x, indices = max_pool_with_indices(features)
            unpoolings.append((indices, features.shape[-2:]))
        x = self.deconv_fc6(self.fc7(self.fc6(x)))
        for block in self.decoder:
            x = block(max_unpool(x, *unpoolings.pop()))
        scores: Tensor = self.score(x)
        return scores


def deconv_bn_relu(c_in: int, c_out: int, *, kernel: int = 3, padding: int = 1) -> nn.Sequential:
    """Build a transposed convolution with batch normalisation and ReLU."""
    layer = nn.ConvTranspose2d(c_in, c_out, kernel, padding=padding)
    return nn.Sequential(layer, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))
