"""Wrapped networks of torchvision: FCN and DeepLab v3 on dilated backbones, and LR-ASPP.

DeepLab v3: Chen et al., arXiv 1706.05587. MobileNetV3 and LR-ASPP: Howard et al., ICCV 2019. torchvision's FCN is a
dilated ResNet and two convolutions, without the skips of fcn.py.

    image -> backbone @ 1/8 or 1/16 -> classifier -> scores, enlarged to the image's size
                     +--------------> auxiliary classifier (in training mode; not in LR-ASPP)
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import get_model


class TorchvisionNet(nn.Module):
    """torchvision's segmentation network `model`; its state_dict has torchvision's names with the prefix "net.".

    Input: float (N, 3, H, W), any size. Output: float scores (N, classes, H, W); in training mode a pair with auxiliary
    scores of the same size, if the network has them.
    """

    def __init__(self, classes: int = 21, *, model: str) -> None:
        super().__init__()
        keys = {} if model.startswith("lraspp") else {"aux_loss": True}  # as in the published weights
        self.net = get_model(model, weights=None, weights_backbone=None, num_classes=classes, **keys)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        out = self.net(image)
        return (out["out"], out["aux"]) if self.training and "aux" in out else out["out"]
