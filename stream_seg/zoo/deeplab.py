"""DeepLab v1 to v3+: Chen, Papandreou et al.; arXiv 1412.7062, 1606.00915, 1706.05587, 1802.02611.

All of them remove the last strides of a classifier and dilate its convolutions, which keeps the features dense and the
receptive field as large as before.

    v1   VGG16 @ 1/8 -> fc6 (3x3, rate 12: large field of view) -> fc7 -> scores @ 1/8 [-> CRF]
    v2   VGG16 or ResNet @ 1/8 -> four parallel rates (6 12 18 24), each to scores -> (+) -> scores @ 1/8 [-> CRF]
    v3   ResNet @ 1/16, conv5 with rates 2 4 8 -> ASPP (1x1, 6 12 18, pooled image) -> scores @ 1/16
    v3+  ResNet @ 1/16 -> ASPP -> x4 -> concatenated with conv2 @ 1/4 (48 channels) -> 3x3, 3x3 -> scores @ 1/4

Not implemented: v2's average over three input scales, and v3+ on Xception.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP

from stream_seg.zoo.backbones import VGG16, ResNet, dilate, init_weights
from stream_seg.zoo.crf import ConvCRF
from stream_seg.zoo.operators import atrous, conv_bn_relu


class DilatedVGG16(nn.Module):
    """VGG16 at stride 8, 512 channels: pooling overlaps (3x3), the last two have stride 1, conv5 is dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = VGG16()
        dilate(self.blocks[4], 2)

    def forward(self, x: Tensor) -> Tensor:
        for block, stride in zip(self.blocks, (2, 2, 2, 1, 1), strict=True):
            x = F.max_pool2d(block(x), 3, stride=stride, padding=1)
        return x


def fov_classifier(classes: int, *, rate: int) -> nn.Sequential:
    """Build fc6 as an atrous 3x3 convolution, fc7 and fc8 as 1x1: a classifier at every pixel."""
    fc6 = (atrous(512, 1024, rate), nn.ReLU(inplace=True), nn.Dropout())
    fc7 = (nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True), nn.Dropout())
    return nn.Sequential(*fc6, *fc7, nn.Conv2d(1024, classes, 1))


class DeepLabV1(nn.Module):
    """DeepLab-LargeFOV; with `crf`, mean-field steps of a convolutional CRF at the scores' resolution follow.

    Input: float (N, 3, H, W), any size. Output: float scores (N, classes, ceil(H/8), ceil(W/8)).
    """

    def __init__(self, classes: int = 21, *, crf: bool = False) -> None:
        super().__init__()
        self.features = DilatedVGG16()
        self.pool5a = nn.AvgPool2d(3, stride=1, padding=1)
        self.classify = fov_classifier(classes, rate=12)
        self.crf = ConvCRF() if crf else None
        init_weights(self)

    def forward(self, image: Tensor) -> Tensor:
        return refine(self.classify(self.pool5a(self.features(image))), image, self.crf)


def refine(scores: Tensor, image: Tensor, crf: nn.Module | None) -> Tensor:
    """Apply the CRF, if any, to scores and the image at their size."""
    if crf is None:
        return scores
    result: Tensor = crf(scores, F.interpolate(image, size=scores.shape[-2:], mode="area"))
    return result


class DeepLabV2(nn.Module):
    """DeepLab-ASPP-L: scores summed over four rates; `crf` as in v1. `backbone`: vgg16, or a torchvision ResNet.

    Input: float (N, 3, H, W), any size. Output: float scores (N, classes, ceil(H/8), ceil(W/8)).
    """

    def __init__(self, classes: int = 21, *, backbone: str = "resnet101", crf: bool = False) -> None:
        super().__init__()
        rates = (6, 12, 18, 24)
        self.crf = ConvCRF() if crf else None
        self.vgg = backbone == "vgg16"
        if self.vgg:
            self.features: nn.Module = DilatedVGG16()
            self.branches = nn.ModuleList(fov_classifier(classes, rate=rate) for rate in rates)
            init_weights(self)
        else:
            features = ResNet(backbone, output_stride=8)
            for stage, rate in zip(features.layers[2:], (2, 4), strict=True):
                dilate(stage, rate)  # every block, as in the authors' prototxt; torchvision halves the first block's
            self.features = features
            self.branches = nn.ModuleList(atrous(features.channels[3], classes, rate) for rate in rates)

    def forward(self, image: Tensor) -> Tensor:
        features = self.features(image)
        x = features if self.vgg else features[3]
        first, *others = (branch(x) for branch in self.branches)
        return refine(sum(others, start=first), image, self.crf)


class DeepLabV3(nn.Module):
    """DeepLab v3 at output stride 16: multi-grid 1 2 4 in conv5, so rates 2 4 8, then ASPP.

    Input: float (N, 3, H, W), any size. Output: float scores (N, classes, ceil(H/16), ceil(W/16)).
    """

    def __init__(self, classes: int = 21, *, backbone: str = "resnet101") -> None:
        super().__init__()
        self.features = ResNet(backbone, output_stride=16)
        for block, rate in zip(self.features.layers[3].children(), (2, 4, 8), strict=True):
            dilate(block, rate)
        self.aspp = ASPP(self.features.channels[3], [6, 12, 18])
        self.aspp.project = self.aspp.project[:3]  # torchvision adds dropout
        self.score = nn.Conv2d(256, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.score(self.aspp(self.features(image)[3]))
        return scores


class DeepLabV3Plus(DeepLabV3):
    """DeepLab v3 as the encoder of a small decoder, which adds the edges of conv2.

    Input: float (N, 3, H, W), any size. Output: float scores (N, classes, ceil(H/4), ceil(W/4)).
    """

    def __init__(self, classes: int = 21, *, backbone: str = "resnet101") -> None:
        super().__init__(classes, backbone=backbone)
        self.narrow = conv_bn_relu(self.features.channels[0], 48, 1)
        self.decode = nn.Sequential(conv_bn_relu(256 + 48, 256), conv_bn_relu(256, 256))

    def forward(self, image: Tensor) -> Tensor:
        conv2, *_, conv5 = self.features(image)
        x = F.interpolate(self.aspp(conv5), size=conv2.shape[-2:], mode="bilinear")
        scores: Tensor = self.score(self.decode(torch.cat([x, self.narrow(conv2)], dim=1)))
        return scores
