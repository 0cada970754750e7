"""The networks that have a name: those that are shipped trained, and all that can be built and trained.

Nothing here imports torch: a builder is "module:class", imported by the one who calls it. What belongs to the weights
(size, mean, std, classes, palette) stands in the side-car beside them, networks/NAME.json.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Builder:
    """A network of the field: `builder` is called with the number of classes and `keys`.

    `parameters` are those at the source's own number of `classes`, and `parameters_source` says who counted. Scores
    come at ceil(H / stride) x ceil(W / stride).
    """

    builder: str
    source: str
    year: int
    classes: int
    parameters: int
    parameters_source: str
    stride: int = 1
    keys: Mapping[str, str | int | bool] = field(default_factory=dict)


LONG = "Long, Shelhamer, Darrell, CVPR"
NOH = "Noh, Hong, Han, ICCV"
BADRINARAYANAN = "Badrinarayanan, Kendall, Cipolla, PAMI"
RONNEBERGER = "Ronneberger, Fischer, Brox, MICCAI"
IAKUBOVSKII = "Iakubovskii, segmentation_models.pytorch"
CHEN_V1 = "Chen et al., ICLR (arXiv 1412.7062)"
CHEN_V2 = "Chen et al., arXiv 1606.00915"
CHEN_V3 = "Chen et al., arXiv 1706.05587"
CHEN_V3PLUS = "Chen et al., ECCV (arXiv 1802.02611)"
YU = "Yu, Koltun, ICLR"
PENG = "Peng et al., CVPR"
TORCHVISION = "torchvision"

FCN_CODE = "the authors' net.py, summed by layer (paper: 134M, without the upscore layers)"
DECONVNET_CODE = "the authors' prototxt, summed by layer (paper: 252M)"
SEGNET_CODE = "the authors' segnet_inference.prototxt, summed by layer"
DILATION_CODE = "the authors' dilation8_pascal_voc_deploy.prototxt, summed by layer"
UNET_FIGURE = "the paper's figure 1, summed by layer, with three input channels instead of one"
UNET_SMP = "that of segmentation_models.pytorch's Unet on resnet34"
LARGE_FOV = "the paper's 20.5M; the last digits counted here"
META = "torchvision's num_params of the published weights"
ASPP_CODE = "the authors' prototxt (ResNet-101 without fc, four 3x3 classifiers), summed by layer"
ASPP_VGG_CODE = "VGG16 and four branches fc6 to fc8 as in the authors' prototxt, summed by layer"
V3_META = (
    "torchvision's num_params of deeplabv3_resnet101, 60996202, less its auxiliary head, 2365205, and the 3x3"
    " convolution that it has after ASPP, 590336"
)
V3PLUS_CODE = "jfzhang95's pytorch-deeplab-xception on ResNet-101, a re-implementation, summed by layer"
GCN_CODE = (
    "zijundeng's pytorch-semantic-segmentation with kernels of 15, a re-implementation, 60688084, and five learned"
    " transposed convolutions, 7056 each; the parts as in the paper's comparison of kernel sizes"
)
COUNTED = "counted here"

# a table, two lines to a network
# fmt: off
BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {
        "road": Builder(
            "stream_seg.zoo.road:RoadNet", source="this project", year=2026, classes=11, stride=2,
            parameters=2_625_302, parameters_source=COUNTED,
        ),
        "fcn32s": Builder(
            "stream_seg.zoo.fcn:FCN", source=LONG, year=2015, classes=21,
            parameters=136_152_917, parameters_source=FCN_CODE, keys={"stride": 32},
        ),
        "fcn16s": Builder(
            "stream_seg.zoo.fcn:FCN", source=LONG, year=2015, classes=21,
            parameters=134_815_994, parameters_source=FCN_CODE, keys={"stride": 16},
        ),
        "fcn8s": Builder(
            "stream_seg.zoo.fcn:FCN", source=LONG, year=2015, classes=21,
            parameters=134_489_759, parameters_source=FCN_CODE, keys={"stride": 8},
        ),
        "deconvnet": Builder(
            "stream_seg.zoo.deconvnet:DeconvNet", source=NOH, year=2015, classes=21,
            parameters=251_805_653, parameters_source=DECONVNET_CODE,
        ),
        "segnet": Builder(
            "stream_seg.zoo.segnet:SegNet", source=BADRINARAYANAN, year=2017, classes=11,
            parameters=29_449_355, parameters_source=SEGNET_CODE,
        ),
        "unet": Builder(
            "stream_seg.zoo.unet:UNet", source=RONNEBERGER, year=2015, classes=2,
            parameters=31_031_810, parameters_source=UNET_FIGURE,
        ),
        "unet_padded": Builder(
            "stream_seg.zoo.unet:UNet", source=RONNEBERGER, year=2015, classes=2,
            parameters=31_031_810, parameters_source=UNET_FIGURE, keys={"padded": True},
        ),
        "unet_resnet34": Builder(
            "stream_seg.zoo.unet:UNetResNet", source=IAKUBOVSKII, year=2019, classes=1,
            parameters=24_436_369, parameters_source=UNET_SMP,
        ),
        "deeplab_v1": Builder(
            "stream_seg.zoo.deeplab:DeepLabV1", source=CHEN_V1, year=2015, classes=21, stride=8,
            parameters=20_505_429, parameters_source=LARGE_FOV,
        ),
        "deeplab_v1_crf": Builder(
            "stream_seg.zoo.deeplab:DeepLabV1", source=CHEN_V1, year=2015, classes=21, stride=8,
            parameters=20_505_429, parameters_source=LARGE_FOV, keys={"crf": True},
        ),
        "deeplab_v2": Builder(
            "stream_seg.zoo.deeplab:DeepLabV2", source=CHEN_V2, year=2016, classes=21, stride=8,
            parameters=44_048_532, parameters_source=ASPP_CODE,
        ),
        "deeplab_v2_crf": Builder(
            "stream_seg.zoo.deeplab:DeepLabV2", source=CHEN_V2, year=2016, classes=21, stride=8,
            parameters=44_048_532, parameters_source=ASPP_CODE, keys={"crf": True},
        ),
        "deeplab_v2_vgg16": Builder(
            "stream_seg.zoo.deeplab:DeepLabV2", source=CHEN_V2, year=2016, classes=21, stride=8,
            parameters=37_877_652, parameters_source=ASPP_VGG_CODE, keys={"backbone": "vgg16"},
        ),
        "deeplab_v3": Builder(
            "stream_seg.zoo.deeplab:DeepLabV3", source=CHEN_V3, year=2017, classes=21, stride=16,
            parameters=58_040_661, parameters_source=V3_META,
        ),
        "deeplab_v3plus": Builder(
            "stream_seg.zoo.deeplab:DeepLabV3Plus", source=CHEN_V3PLUS, year=2018, classes=21, stride=4,
            parameters=59_344_309, parameters_source=V3PLUS_CODE,
        ),
        "dilated_front_end": Builder(
            "stream_seg.zoo.dilated:Dilated", source=YU, year=2016, classes=21, stride=8,
            parameters=134_346_581, parameters_source=DILATION_CODE, keys={"context": "none"},
        ),
        "dilated": Builder(
            "stream_seg.zoo.dilated:Dilated", source=YU, year=2016, classes=21, stride=8,
            parameters=141_149_720, parameters_source=DILATION_CODE,
        ),
        "gcn": Builder(
            "stream_seg.zoo.gcn:GCN", source=PENG, year=2017, classes=21,
            parameters=60_723_364, parameters_source=GCN_CODE,
        ),
        "fcn_resnet50": Builder(
            "stream_seg.zoo.torchvision_nets:TorchvisionNet", source=TORCHVISION, year=2019, classes=21,
            parameters=35_322_218, parameters_source=META, keys={"model": "fcn_resnet50"},
        ),
        "deeplabv3_resnet50": Builder(
            "stream_seg.zoo.torchvision_nets:TorchvisionNet", source=TORCHVISION, year=2019, classes=21,
            parameters=42_004_074, parameters_source=META, keys={"model": "deeplabv3_resnet50"},
        ),
        "deeplabv3_mobilenet": Builder(
            "stream_seg.zoo.torchvision_nets:TorchvisionNet", source=TORCHVISION, year=2021, classes=21,
            parameters=11_029_328, parameters_source=META, keys={"model": "deeplabv3_mobilenet_v3_large"},
        ),
        "lraspp_mobilenet": Builder(
            "stream_seg.zoo.torchvision_nets:TorchvisionNet", source=TORCHVISION, year=2021, classes=21,
            parameters=3_221_538, parameters_source=META, keys={"model": "lraspp_mobilenet_v3_large"},
        ),
    }
)
# fmt: on


def built(name: str, classes: int) -> nn.Module:
    """A network of BUILDERS with new weights."""
    builder = BUILDERS[name]
    module, _, kind = builder.builder.partition(":")
    net: nn.Module = getattr(importlib.import_module(module), kind)(classes, **builder.keys)
    return net
