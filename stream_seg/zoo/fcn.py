"""FCN-32s, 16s and 8s: Long, Shelhamer, Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015.

VGG16 with convolutions instead of fully connected layers; scores of earlier poolings are added during enlargement.

    image -> conv1 pool1 -> conv2 pool2 -> conv3 pool3 -> conv4 pool4 -> conv5 pool5 -> fc6 -> fc7 -> score_fr
                                             |              |                                           |
                                             |              |                          32s: x32 --------+
                                        score_pool3    score_pool4                                   upscore2
                                             |              +-----------------(+)-----------------------+
                                             |                    16s: x16 ----|
                                             +------(+)----- upscore_pool4 ----+
                                              8s: x8 -> scores

All transposed convolutions start bilinear and are learned; the paper fixes the last one. The score layers of poolings
start as zeros, so that the finer network starts with the coarser one's predictions (section 4.2).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.zoo.backbones import VGG16, init_weights
from stream_seg.zoo.operators import bilinear_transposed, crop

# conv1_1 pads by 100 in the authors' code, so that fc6 (7x7, unpadded) fits at any size: 99 here and 1 in VGG itself;
# the offsets follow from the layers' sizes (caffe's coord_map)
BORDER = 99
OFFSET_POOL4, OFFSET_POOL3, OFFSET_IMAGE = 5, 9, {32: 19, 16: 27, 8: 31}


class FCN(nn.Module):
    """Class scores at the input's size, from the finest prediction at `stride`.

    Input: float (N, 3, H, W), any size. Output: float (N, classes, H, W).
    """

    def __init__(self, classes: int = 21, *, stride: Literal[8, 16, 32] = 8) -> None:
        super().__init__()
        self.stride = stride
        self.blocks = VGG16()
        self.fc6 = nn.Sequential(nn.Conv2d(512, 4096, 7), nn.ReLU(inplace=True), nn.Dropout())
        self.fc7 = nn.Sequential(nn.Conv2d(4096, 4096, 1), nn.ReLU(inplace=True), nn.Dropout())
        self.score_fr = nn.Conv2d(4096, classes, 1)
        if stride <= 16:
            self.upscore2 = bilinear_transposed(classes, 2)
            self.score_pool4 = nn.Conv2d(512, classes, 1)
        if stride == 8:
            self.upscore_pool4 = bilinear_transposed(classes, 2)
            self.score_pool3 = nn.Conv2d(256, classes, 1)
        self.upscore = bilinear_transposed(classes, stride)
        init_weights(self)
        for layer in self.children():
            if isinstance(layer, nn.Conv2d) and layer is not self.score_fr:
                nn.init.zeros_(layer.weight)

    def forward(self, image: Tensor) -> Tensor:
        pools = [F.pad(image, (BORDER,) * 4)]
        for block in self.blocks:
            pools.append(F.max_pool2d(block(pools[-1]), 2, ceil_mode=True))
        score = self.score_fr(self.fc7(self.fc6(pools[5])))
        if self.stride <= 16:
            score = self.upscore2(score)
            score = score + crop(self.score_pool4(pools[4]), score, OFFSET_POOL4)
        if self.stride == 8:
            score = self.upscore_pool4(score)
            score = score + crop(self.score_pool3(pools[3]), score, OFFSET_POOL3)
        return crop(self.upscore(score), image, OFFSET_IMAGE[self.stride])
