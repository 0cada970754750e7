"""What each network's idea is, in a line, and how accurate its authors found it.

Published figures are not comparable with one another: other backbones, more data, several scales, a CRF afterwards.
What differs from the entry of `BUILDERS` stands in `where`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Published:
    """Mean IoU in percent, on which data, and where it is written."""

    miou: float
    data: str
    where: str


FCN_TABLE = "Table 2 of the paper"
VOC11 = "PASCAL VOC 2011 val, the authors' part"
VOC12_VAL, VOC12_TEST = "PASCAL VOC 2012 val", "PASCAL VOC 2012 test"
COCO = "COCO 2017 val, VOC's classes"
META = "torchvision's metadata of COCO_WITH_VOC_LABELS_V1"

IDEAS: Mapping[str, str] = MappingProxyType(
    {
        "road": "a residual U-Net with atrous context, of dense convolutions in multiples of 32 channels",
        "fcn32s": "a classifier made convolutional: fc layers as convolutions, scores enlarged 32 times",
        "fcn16s": "FCN with the scores of pool4 added before they are enlarged",
        "fcn8s": "FCN with the scores of pool4 and pool3 added",
        "deconvnet": "a mirrored VGG16: unpooling by pooling indices and transposed convolutions",
        "segnet": "an encoder and its mirror without fc layers; only pooling indices cross over",
        "unet": "a contracting and an expanding path; features of equal size are concatenated",
        "unet_padded": "U-Net with padded convolutions: no borders are lost",
        "unet_resnet34": "U-Net on a residual encoder",
        "deeplab_v1": "strides traded for atrous convolutions: dense features with a large field of view",
        "deeplab_v1_crf": "DeepLab v1, sharpened by a convolutional CRF inside the network",
        "deeplab_v2": "atrous spatial pyramid: several rates side by side, ResNet-101",
        "deeplab_v2_crf": "DeepLab v2, sharpened by a convolutional CRF inside the network",
        "deeplab_v2_vgg16": "atrous spatial pyramid on VGG16",
        "deeplab_v3": "multi-grid rates, and a pyramid with the pooled image; no CRF",
        "deeplab_v3plus": "DeepLab v3 as the encoder of a small decoder, for sharp edges",
        "dilated_front_end": "VGG16 without its last two poolings, dilated instead",
        "dilated": "the front end, then a context module whose dilation doubles from layer to layer",
        "gcn": "large kernels as crosses of k x 1 and 1 x k, and residual refinement of boundaries",
        "fcn_resnet50": "a dilated ResNet-50 and two convolutions",
        "deeplabv3_resnet50": "DeepLab v3 on a dilated ResNet-50",
        "deeplabv3_mobilenet": "DeepLab v3 on MobileNetV3: depthwise convolutions, few multiplications",
        "lraspp_mobilenet": "MobileNetV3 with a pyramid reduced to a gate by the pooled image",
    }
)

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "fcn32s": Published(59.4, VOC11, FCN_TABLE),
        "fcn16s": Published(62.4, VOC11, FCN_TABLE),
        "fcn8s": Published(62.7, VOC11, FCN_TABLE),
        "deconvnet": Published(69.6, VOC12_TEST, "Table 1 of the paper: on region proposals, without CRF or ensemble"),
        "segnet": Published(60.1, "CamVid test", "section 4.1 of the paper: trained on 3433 road scenes"),
        "unet": Published(92.0, "PhC-U373 (cells)", "Table 2 of the paper: IoU, ISBI cell tracking challenge 2015"),
        "deeplab_v1": Published(62.25, VOC12_VAL, "Table 1 of the paper: DeepLab-LargeFOV"),
        "deeplab_v1_crf": Published(
            67.64, VOC12_VAL, "Table 1 of the paper: DeepLab-CRF-LargeFOV, with the fully connected CRF"
        ),
        "deeplab_v2": Published(76.35, VOC12_VAL, "Table 4 of the paper: with COCO and three scales, before the CRF"),
        "deeplab_v2_crf": Published(
            79.7, VOC12_TEST, "abstract of the paper: with COCO, three scales and the fully connected CRF"
        ),
        "deeplab_v2_vgg16": Published(68.96, VOC12_VAL, "Table 3 of the paper: DeepLab-ASPP-L, before the CRF"),
        "deeplab_v3": Published(77.21, VOC12_VAL, "Table 5 of the paper: ResNet-101, output stride 16, one scale"),
        "deeplab_v3plus": Published(78.85, VOC12_VAL, "Table 3 of the paper: ResNet-101, output stride 16, one scale"),
        "dilated_front_end": Published(67.6, VOC12_TEST, "Table 2 of the paper"),
        "dilated": Published(75.3, VOC12_TEST, "Table 4 of the paper: with COCO, and a CRF-RNN afterwards"),
        "gcn": Published(82.2, VOC12_TEST, "abstract of the paper: ResNet-152, with COCO, several scales and a CRF"),
        "fcn_resnet50": Published(60.5, COCO, META),
        "deeplabv3_resnet50": Published(66.4, COCO, META),
        "deeplabv3_mobilenet": Published(60.3, COCO, META),
        "lraspp_mobilenet": Published(57.9, COCO, META),
    }
)
