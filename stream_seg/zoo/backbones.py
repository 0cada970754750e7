"""Encoders of the networks: torchvision's VGG16 and ResNets without their classifiers."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import get_model, vgg


class VGG16(nn.ModuleList):
    """The blocks conv1 to conv5 of VGG16 (Simonyan and Zisserman, ICLR 2015), without the pooling between them."""

    def __init__(self, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.model, layers = "vgg16_bn" if batch_norm else "vgg16", list[nn.Module]()
        for layer in vgg.make_layers(vgg.cfgs["D"], batch_norm=batch_norm):
            if isinstance(layer, nn.MaxPool2d):
                self.append(nn.Sequential(*layers))
                layers = []
            else:
                layers.append(layer)

    def torchvision_names(self) -> dict[str, str]:
        """Map the name of each weight to its name in torchvision's classifier."""
        names, number = dict[str, str](), 0
        for block, layers in self.named_children():
            for place, layer in layers.named_children():
                names |= {f"{block}.{place}.{kind}": f"features.{number}.{kind}" for kind in layer.state_dict()}
                number += 1
            number += 1  # the pooling layer after the block
        return names


class ResNet(nn.Module):
    """torchvision's ResNet (He et al., CVPR 2016), returning the features of conv2 to conv5.

    Strides are 4, 8, 16 and 32, limited to `output_stride` (8, 16 or 32): later stages are dilated instead, which needs
    a ResNet of bottlenecks (50 layers or more).
    """

    def __init__(self, name: str, *, output_stride: int = 32) -> None:
        super().__init__()
        dilated = [False, output_stride < 16, output_stride < 32]
        keys = {"replace_stride_with_dilation": dilated} if any(dilated) else {}
        net, self.model = get_model(name, weights=None, **keys), name
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu)
        self.pool = net.maxpool
        self.layers = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        bottleneck = hasattr(net.layer1[0], "conv3")
        self.channels = tuple(c * (4 if bottleneck else 1) for c in (64, 128, 256, 512))

    def torchvision_names(self) -> dict[str, str]:
        """Map the name of each weight to its name in torchvision's classifier."""
        layers = {"stem.0": "conv1", "stem.1": "bn1", **{f"layers.{n}": f"layer{n + 1}" for n in range(4)}}
        return {
            name: f"{layers[f'{part}.{number}']}.{rest}"
            for name in self.state_dict()
            for part, number, rest in [name.split(".", 2)]
        }

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.stages(self.stem(image))

    def stages(self, conv1: Tensor) -> list[Tensor]:
        """Return the features of conv2 to conv5 from the output of the stem, which has half the image's size."""
        x, features = self.pool(conv1), []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


def dilate(module: nn.Module, rate: int) -> None:
    """Make every 3x3 convolution in `module` atrous with `rate`, keeping output sizes."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.dilation = layer.padding = (rate, rate)


def init_weights(net: nn.Module) -> None:
    """Apply He initialisation to convolutions: without it the signal of a deep VGG fades before the scores."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
