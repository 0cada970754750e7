"""Global convolutional network: Peng et al., Large Kernel Matters: Improve Semantic Segmentation by GCN, CVPR 2017.

Classification needs dense connections, localisation needs to avoid pooling. A k x k convolution nearly as large as the
feature map provides both, and is affordable as k x 1, 1 x k in parallel with 1 x k, k x 1.

    ResNet  conv2 @ 1/4   conv3 @ 1/8   conv4 @ 1/16   conv5 @ 1/32
              GCN           GCN            GCN            GCN          (each to as many channels as classes)
              BR            BR             BR             BR           (boundary refinement)
    scores <- BR <- up <- BR <- up <- BR <- (+) <- up <- BR <- (+) <- up <- BR <- (+) <- up <---+
"""

from __future__ import annotations

from torch import Tensor, nn

from stream_seg.zoo.backbones import ResNet
from stream_seg.zoo.operators import bilinear_transposed, crop


class GCN(nn.Module):
    """Class scores at the input's size. The paper uses resnet152 as `backbone`, and resnet50 in its comparisons.

    Input: float (N, 3, H, W), any size. Output: float (N, classes, H, W).
    """

    def __init__(self, classes: int = 21, *, backbone: str = "resnet152", kernel: int = 15) -> None:
        super().__init__()
        self.features = ResNet(backbone)
        self.globals = nn.ModuleList(
            nn.Sequential(GlobalConvolution(channels, classes, kernel), BoundaryRefinement(classes))
            for channels in self.features.channels
        )
        self.up = nn.ModuleList(bilinear_transposed(classes, 2, padding=1) for _ in range(5))
        self.refine = nn.ModuleList(BoundaryRefinement(classes) for _ in range(5))

    def forward(self, image: Tensor) -> Tensor:
        at2 = self.features.stem(image)
        features = self.features.stages(at2)
        at4, at8, at16, score = (part(x) for part, x in zip(self.globals, features, strict=True))
        for up, refine, skip in zip(self.up[:3], self.refine[:3], (at16, at8, at4), strict=True):
            score = refine(skip + crop(up(score), like=skip))
        for up, refine, like in zip(self.up[3:], self.refine[3:], (at2, image), strict=True):
            score = refine(crop(up(score), like=like))
        scores: Tensor = score
        return scores


class GlobalConvolution(nn.Module):
    """A k x k convolution as the sum of two separable ones, without non-linearity, which the paper found best."""

    def __init__(self, c_in: int, c_out: int, k: int) -> None:
        super().__init__()
        tall, wide = ((k, 1), (k // 2, 0)), ((1, k), (0, k // 2))
        self.left, self.right = (
            nn.Sequential(nn.Conv2d(c_in, c_out, a[0], padding=a[1]), nn.Conv2d(c_out, c_out, b[0], padding=b[1]))
            for a, b in ((tall, wide), (wide, tall))
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.left(x) + self.right(x)
        return total


class BoundaryRefinement(nn.Module):
    """Scores plus a residual of two 3x3 convolutions."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(classes, classes, 3, padding=1) for _ in range(2))
        self.residual = nn.Sequential(first, nn.ReLU(inplace=True), second)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = x + self.residual(x)
        return scores
