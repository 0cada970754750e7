"""The registry of networks: one entry each, with its source, its parameter count and the accuracy of its authors.

An entry belongs to an architecture. Input size, normalisation, classes and palette belong to weights: see the side-car
of a network that is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stream_seg.errors import ConfigError
from stream_seg.installation import find_file
from stream_seg.network.shipped import NETWORKS


@dataclass(frozen=True)
class Accuracy:
    """Mean IoU in percent as published, the data it was measured on, and where it is stated.

    Published figures are not comparable with one another: backbones, training data, input scales and a CRF afterwards
    differ. `where` states what differs from the entry of BUILDERS.
    """

    miou: float
    data: str
    where: str


@dataclass(frozen=True)
class Builder:
    """A network: `builder` is "module:class", called with the number of classes and `keys`.

    `parameters` is the count at the source's own number of `classes`, `parameters_source` its origin. Scores have
    the size ceil(H / stride) x ceil(W / stride). `idea` is one line for tables.
    """

    builder: str
    idea: str
    source: str
    year: int
    classes: int
    parameters: int
    parameters_source: str
    stride: int = 1
    keys: Mapping[str, str | int | bool] = field(default_factory=dict)
    published: Accuracy | None = None
    weights: str | None = None
    """Name of weights that torchvision publishes."""


LONG = "Long, Shelhamer, Darrell, CVPR"
RONNEBERGER = "Ronneberger, Fischer, Brox, MICCAI"
CHEN_V1 = "Chen et al., ICLR (arXiv 1412.7062)"
CHEN_V2 = "Chen et al., arXiv 1606.00915"
YU = "Yu, Koltun, ICLR"
TORCHVISION = "torchvision"

FCN_CODE = "the authors' net.py, summed by layer (paper: 134M, without the upscore layers)"
SEGNET_CODE = "the authors' segnet_inference.prototxt, summed by layer"
DILATION_CODE = "the authors' dilation8_pascal_voc_deploy.prototxt, summed by layer"
UNET_FIGURE = "the paper's figure 1, summed by layer, with three input channels instead of one"
UNET_SMP = "the Unet of segmentation_models.pytorch on resnet34"
LARGE_FOV = "the paper's 20.5M; the last digits counted here"
TORCHVISION_COUNT = "torchvision's num_params of the published weights"
ASPP_CODE = "the authors' prototxt (ResNet-101 without fc, four 3x3 classifiers), summed by layer"
ASPP_VGG_CODE = "VGG16 and four branches fc6 to fc8 as in the authors' prototxt, summed by layer"
V3_META = (
    "torchvision's num_params of deeplabv3_resnet101, 60996202, less its auxiliary head, 2365205, and the 3x3"
    " convolution after its ASPP, 590336"
)
V3PLUS_CODE = "jfzhang95's pytorch-deeplab-xception on ResNet-101, a re-implementation, summed by layer"
GCN_CODE = (
    "zijundeng's pytorch-semantic-segmentation with kernels of 15, a re-implementation, 60688084, and five learned"
    " transposed convolutions, 7056 each; the parts as in the paper's comparison of kernel sizes"
)

FCN_TABLE = "Table 2 of the paper"
VOC11 = "PASCAL VOC 2011 val, the authors' part"
VOC12_VAL, VOC12_TEST = "PASCAL VOC 2012 val", "PASCAL VOC 2012 test"
COCO = "COCO 2017 val, VOC's classes"
TORCHVISION_META = "torchvision's metadata of COCO_WITH_VOC_LABELS_V1"

# fmt: off
# name: module:class, idea; source, year, classes, parameters and their source; published accuracy
BUILDERS: dict[str, Builder] = {
    "road": Builder("stream_seg.zoo.road:RoadNet",
        "a residual U-Net with atrous context; dense convolutions in multiples of 32 channels",
        "this project", 2026, 11, 2_625_302, "counted here", stride=2),
    "fcn32s": Builder("stream_seg.zoo.fcn:FCN",
        "a classifier made convolutional: fc layers as convolutions, scores enlarged 32 times",
        LONG, 2015, 21, 136_152_917, FCN_CODE, keys={"stride": 32}, published=Accuracy(59.4, VOC11, FCN_TABLE)),
    "fcn16s": Builder("stream_seg.zoo.fcn:FCN", "FCN with the scores of pool4 added before enlargement",
        LONG, 2015, 21, 134_815_994, FCN_CODE, keys={"stride": 16}, published=Accuracy(62.4, VOC11, FCN_TABLE)),
    "fcn8s": Builder("stream_seg.zoo.fcn:FCN", "FCN with the scores of pool4 and pool3 added",
        LONG, 2015, 21, 134_489_759, FCN_CODE, keys={"stride": 8}, published=Accuracy(62.7, VOC11, FCN_TABLE)),
    "deconvnet": Builder("stream_seg.zoo.deconvnet:DeconvNet",
        "a mirrored VGG16: unpooling by pooling indices, transposed convolutions",
        "Noh, Hong, Han, ICCV", 2015, 21, 251_805_653, "the authors' prototxt, summed by layer (paper: 252M)",
        published=Accuracy(69.6, VOC12_TEST, "Table 1 of the paper: on region proposals, without CRF or ensemble")),
    "segnet": Builder("stream_seg.zoo.segnet:SegNet",
        "an encoder and its mirror without fc layers; only pooling indices reach the decoder",
        "Badrinarayanan, Kendall, Cipolla, PAMI", 2017, 11, 29_449_355, SEGNET_CODE,
        published=Accuracy(60.1, "CamVid test", "section 4.1 of the paper: trained on 3433 road scenes")),
    "unet": Builder("stream_seg.zoo.unet:UNet",
        "a contracting and an expanding path; features of equal size are concatenated",
        RONNEBERGER, 2015, 2, 31_031_810, UNET_FIGURE,
        published=Accuracy(92.0, "PhC-U373 (cells)", "Table 2 of the paper: IoU, ISBI cell tracking challenge 2015")),
    "unet_padded": Builder("stream_seg.zoo.unet:UNet", "U-Net with padded convolutions, which keep the borders",
        RONNEBERGER, 2015, 2, 31_031_810, UNET_FIGURE, keys={"padded": True}),
    "unet_resnet34": Builder("stream_seg.zoo.unet:UNetResNet", "U-Net with a residual encoder",
        "Iakubovskii, segmentation_models.pytorch", 2019, 1, 24_436_369, UNET_SMP),
    "deeplab_v1": Builder("stream_seg.zoo.deeplab:DeepLabV1",
        "atrous convolutions instead of strides: dense features with a large field of view",
        CHEN_V1, 2015, 21, 20_505_429, LARGE_FOV, stride=8,
        published=Accuracy(62.25, VOC12_VAL, "Table 1 of the paper: DeepLab-LargeFOV")),
    "deeplab_v1_crf": Builder("stream_seg.zoo.deeplab:DeepLabV1",
        "DeepLab v1, then a convolutional CRF inside the network",
        CHEN_V1, 2015, 21, 20_505_429, LARGE_FOV, stride=8, keys={"crf": True},
        published=Accuracy(67.64, VOC12_VAL, "Table 1 of the paper: DeepLab-CRF-LargeFOV, fully connected CRF")),
    "deeplab_v2": Builder("stream_seg.zoo.deeplab:DeepLabV2",
        "atrous spatial pyramid: several rates in parallel, on ResNet-101",
        CHEN_V2, 2016, 21, 44_048_532, ASPP_CODE, stride=8,
        published=Accuracy(76.35, VOC12_VAL, "Table 4 of the paper: with COCO and three scales, before the CRF")),
    "deeplab_v2_crf": Builder("stream_seg.zoo.deeplab:DeepLabV2",
        "DeepLab v2, then a convolutional CRF inside the network",
        CHEN_V2, 2016, 21, 44_048_532, ASPP_CODE, stride=8, keys={"crf": True},
        published=Accuracy(79.7, VOC12_TEST, "abstract of the paper: with COCO, three scales, fully connected CRF")),
    "deeplab_v2_vgg16": Builder("stream_seg.zoo.deeplab:DeepLabV2", "atrous spatial pyramid on VGG16",
        CHEN_V2, 2016, 21, 37_877_652, ASPP_VGG_CODE, stride=8, keys={"backbone": "vgg16"},
        published=Accuracy(68.96, VOC12_VAL, "Table 3 of the paper: DeepLab-ASPP-L, before the CRF")),
    "deeplab_v3": Builder("stream_seg.zoo.deeplab:DeepLabV3",
        "multi-grid rates and a pyramid with image pooling; no CRF",
        "Chen et al., arXiv 1706.05587", 2017, 21, 58_040_661, V3_META, stride=16,
        published=Accuracy(77.21, VOC12_VAL, "Table 5 of the paper: ResNet-101, output stride 16, one scale")),
    "deeplab_v3plus": Builder("stream_seg.zoo.deeplab:DeepLabV3Plus",
        "DeepLab v3 as the encoder of a small decoder, for sharp edges",
        "Chen et al., ECCV (arXiv 1802.02611)", 2018, 21, 59_344_309, V3PLUS_CODE, stride=4,
        published=Accuracy(78.85, VOC12_VAL, "Table 3 of the paper: ResNet-101, output stride 16, one scale")),
    "dilated_front_end": Builder("stream_seg.zoo.dilated:Dilated",
        "VGG16 with dilation instead of its last two poolings",
        YU, 2016, 21, 134_346_581, DILATION_CODE, stride=8, keys={"context": "none"},
        published=Accuracy(67.6, VOC12_TEST, FCN_TABLE)),
    "dilated": Builder("stream_seg.zoo.dilated:Dilated",
        "the front end, then a context module whose dilation doubles from layer to layer",
        YU, 2016, 21, 141_149_720, DILATION_CODE, stride=8,
        published=Accuracy(75.3, VOC12_TEST, "Table 4 of the paper: with COCO, and a CRF-RNN afterwards")),
    "gcn": Builder("stream_seg.zoo.gcn:GCN", "large kernels as k x 1 and 1 x k pairs, and residual boundary refinement",
        "Peng et al., CVPR", 2017, 21, 60_723_364, GCN_CODE,
        published=Accuracy(82.2, VOC12_TEST, "abstract of the paper: ResNet-152, with COCO, several scales and a CRF")),
    "fcn_resnet50": Builder("stream_seg.zoo.torchvision_nets:TorchvisionNet",
        "a dilated ResNet-50 and two convolutions",
        TORCHVISION, 2019, 21, 35_322_218, TORCHVISION_COUNT, keys={"model": "fcn_resnet50"},
        weights="FCN_ResNet50_Weights.DEFAULT",
        published=Accuracy(60.5, COCO, TORCHVISION_META)),
    "deeplabv3_resnet50": Builder("stream_seg.zoo.torchvision_nets:TorchvisionNet", "DeepLab v3 on a dilated ResNet-50",
        TORCHVISION, 2019, 21, 42_004_074, TORCHVISION_COUNT, keys={"model": "deeplabv3_resnet50"},
        weights="DeepLabV3_ResNet50_Weights.DEFAULT",
        published=Accuracy(66.4, COCO, TORCHVISION_META)),
    "deeplabv3_mobilenet": Builder("stream_seg.zoo.torchvision_nets:TorchvisionNet",
        "DeepLab v3 on MobileNetV3: depthwise convolutions, few multiplications",
        TORCHVISION, 2021, 21, 11_029_328, TORCHVISION_COUNT, keys={"model": "deeplabv3_mobilenet_v3_large"},
        weights="DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT",
        published=Accuracy(60.3, COCO, TORCHVISION_META)),
    "lraspp_mobilenet": Builder("stream_seg.zoo.torchvision_nets:TorchvisionNet",
        "MobileNetV3 with a pyramid reduced to a gate by image pooling",
        TORCHVISION, 2021, 21, 3_221_538, TORCHVISION_COUNT, keys={"model": "lraspp_mobilenet_v3_large"},
        weights="LRASPP_MobileNet_V3_Large_Weights.DEFAULT",
        published=Accuracy(57.9, COCO, TORCHVISION_META)),
}
# fmt: on


def explain_untrained(name: object) -> str | None:
    """Return the commands that give a network weights, if `name` is that of one without; None for any other name."""
    if not isinstance(name, str) or name not in BUILDERS or name in NETWORKS:
        return None
    weights = BUILDERS[name].weights or "FILE"
    train = f"stream-seg train RECIPE (with network: {name}; recipes to start from: {find_file('configs/train')}/)"
    export = f"stream-seg export {name} --weights {weights} --size 352x480 --out {name}.onnx"
    return f"{name} is untrained; train it: {train}; or export weights: {export}; then use the .onnx"


def refuse_untrained(name: object) -> None:
    """Raise ConfigError for the name of a network without weights."""
    if (reason := explain_untrained(name)) is not None:
        raise ConfigError(f"network: {reason}")
