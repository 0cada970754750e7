"""U-Net: Ronneberger, Fischer, Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.

    image -> 64 ----------------------- crop, concatenate -----------------------> 64 -> scores
              pool -> 128 -------------- crop, concatenate --------------> 128 -> up
                       pool -> 256 ----- crop, concatenate -----> 256 -> up
                                pool -> 512 - concatenate -> 512 -> up
                                         pool -> 1024 -> up

As published, convolutions are unpadded: 572 pixels give 388, and the image is mirrored at its border (the paper's
overlap-tile strategy). Up-convolutions are those of figure 1, linear and halving the channels; the authors' prototxt
adds a ReLU to each and does not halve in the last. The second network of this file has a ResNet (He et al., CVPR 2016)
as its contracting path.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.errors import NetworkError
from stream_seg.zoo.backbones import ResNet, init_weights
from stream_seg.zoo.operators import conv_bn_relu, crop

WIDTHS = (64, 128, 256, 512, 1024)
MARGIN = 92  # pixels that 18 unpadded 3x3 convolutions at five scales take from each side
SMALLEST = MARGIN + 16  # a mirrored border must be narrower than the image


class UNet(nn.Module):
    """Class scores at the input's size.

    Input: float (N, 3, H, W), any size with `padded`; as published, mirroring needs sides of at least 108 pixels
    (NetworkError). Output: float (N, classes, H, W).
    """

    def __init__(self, classes: int = 2, *, padded: bool = False) -> None:
        super().__init__()
        self.padded = padded
        self.contract = nn.ModuleList(double_conv(*pair, padded=padded) for pair in pairwise((3, *WIDTHS)))
        self.dropout = nn.Dropout()
        self.up = nn.ModuleList(up_conv(c, c // 2) for c in WIDTHS[:0:-1])
        self.expand = nn.ModuleList(double_conv(c, c // 2, padded=padded) for c in WIDTHS[:0:-1])
        self.score = nn.Conv2d(WIDTHS[0], classes, 1)
        init_weights(self)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = self._pad(image), list[Tensor]()
        for number, block in enumerate(self.contract):
            x = block(F.max_pool2d(skips[-1], 2) if skips else x)
            skips.append(self.dropout(x) if number >= 3 else x)  # the end of the contracting path
        x = skips.pop()
        for up, block in zip(self.up, self.expand, strict=True):
            x, skip = up(x), skips.pop()
            middle = crop(skip, like=x, offset=(skip.shape[-1] - x.shape[-1]) // 2)
            x = block(torch.cat([middle, x], dim=1))
        return crop(self.score(x), like=image)

    def _pad(self, image: Tensor) -> Tensor:
        """Pad the image by the border that the convolutions take, and to a size that halves evenly four times."""
        height, width = image.shape[-2:]
        if self.padded:
            return F.pad(image, (0, -width % 16, 0, -height % 16), mode="replicate")
        down, right = (4 - height) % 16, (4 - width) % 16  # valid outputs are 4, 20, 36, ..., 388
        if min(height, width) < SMALLEST:
            raise NetworkError(f"U-Net: {height}x{width} is too small; each side must be at least {SMALLEST}")
        return F.pad(image, (MARGIN, MARGIN + right, MARGIN, MARGIN + down), mode="reflect")


def double_conv(c_in: int, c_out: int, *, padded: bool) -> nn.Sequential:
    """Build two 3x3 convolutions, each with a ReLU."""
    pad = int(padded)
    first, second = nn.Conv2d(c_in, c_out, 3, padding=pad), nn.Conv2d(c_out, c_out, 3, padding=pad)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def up_conv(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """Build a 2x2 up-convolution, initialised as in section 3 of the paper: `c_in` values reach each output."""
    layer = nn.ConvTranspose2d(c_in, c_out, 2, stride=2)
    nn.init.normal_(layer.weight, std=(2 / c_in) ** 0.5)
    return layer


class UNetResNet(nn.Module):
    """U-Net with a ResNet as its contracting path; the expanding path is that of segmentation_models.pytorch.

    Input: float (N, 3, H, W), any size. Output: float (N, classes, H, W).
    """

    def __init__(self, classes: int = 21, *, backbone: str = "resnet34") -> None:
        super().__init__()
        self.encoder = ResNet(backbone)
        skips = (*self.encoder.channels[2::-1], 64, 0)
        widths = (256, 128, 64, 32, 16)
        ins = (self.encoder.channels[3], *widths)
        self.decoder = nn.ModuleList(
            nn.Sequential(conv_bn_relu(c_in + skip, c_out), conv_bn_relu(c_out, c_out))
            for c_in, skip, c_out in zip(ins, skips, widths, strict=False)
        )
        self.score = nn.Conv2d(widths[-1], classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        at2 = self.encoder.stem(image)
        at4, at8, at16, x = self.encoder.stages(at2)
        for block, skip in zip(self.decoder, (at16, at8, at4, at2, None), strict=True):
            x = F.interpolate(x, size=(image if skip is None else skip).shape[-2:], mode="nearest")
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
        scores: Tensor = self.score(x)
        return scores
