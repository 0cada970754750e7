"""DeconvNet: Noh, Hong, Han, Learning Deconvolution Network for Semantic Segmentation, ICCV 2015.

VGG16 with its fully connected layers, and its mirror image: where the encoder pooled, the decoder unpools to the very
places of the maxima, and deconvolutions fill in what lies between.

    image -> conv1 -> conv2 -> conv3 -> conv4 -> conv5 -> fc6 (7x7) -> fc7
              | where   | where   | where   | where   | where           |
    scores <- deconv1 <- deconv2 <- deconv3 <- deconv4 <- deconv5 <- deconv-fc6
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from stream_seg.errors import NetworkError
from stream_seg.zoo.backbones import VGG16
from stream_seg.zoo.operators import max_pool_where, max_unpool

# deconv5 first: the channels before and after each deconvolution
MIRRORED = ((512, 512, 512, 512), (512, 512, 512, 256), (256, 256, 256, 128), (128, 128, 64), (64, 64, 64))
SMALLEST = 193  # 7 cells remain after five poolings that round up


class DeconvNet(nn.Module):
    """Class scores at the input's size.

    Input: float (N, 3, H, W); the paper's is 224x224, larger ones are worked on convolutionally, and each side must be
    at least 193 (NetworkError). Output: float (N, classes, H, W).
    """

    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.encoder = VGG16(batch_norm=True)
        self.fc6 = nn.Sequential(nn.Conv2d(512, 4096, 7), nn.BatchNorm2d(4096), nn.ReLU(inplace=True))
        self.fc7 = nn.Sequential(nn.Conv2d(4096, 4096, 1), nn.BatchNorm2d(4096), nn.ReLU(inplace=True))
        self.deconv_fc6 = deconv(4096, 512, kernel=7, padding=0)
        self.decoder = nn.ModuleList(
            nn.Sequential(*(deconv(*pair) for pair in pairwise(widths))) for widths in MIRRORED
        )
        self.score = nn.Conv2d(64, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST:
            raise NetworkError(f"DeconvNet: {height}x{width} is too small for fc6: it needs {SMALLEST} pixels each way")
        x, undo = image, list[tuple[Tensor, tuple[int, int]]]()
        for block in self.encoder:
            x = block(x)
            size = (x.shape[-2], x.shape[-1])
            x, where = max_pool_where(x)
            undo.append((where, size))
        x = self.deconv_fc6(self.fc7(self.fc6(x)))
        for block in self.decoder:
            x = block(max_unpool(x, *undo.pop()))
        scores: Tensor = self.score(x)
        return scores


def deconv(c_in: int, c_out: int, *, kernel: int = 3, padding: int = 1) -> nn.Sequential:
    """Transposed convolution, batch normalisation, ReLU."""
    layer = nn.ConvTranspose2d(c_in, c_out, kernel, padding=padding)
    return nn.Sequential(layer, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))
