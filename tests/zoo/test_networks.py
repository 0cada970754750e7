"""Tests of single claims of the papers about their networks. Shapes are computed without data (device meta)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import center_crop

from stream_seg.zoo import fcn
from stream_seg.zoo.deconvnet import DeconvNet
from stream_seg.zoo.deeplab import DeepLabV1, DeepLabV2, DeepLabV3, DeepLabV3Plus, DilatedVGG16
from stream_seg.zoo.dilated import WIDTHS, Dilated, build_context
from stream_seg.zoo.gcn import GCN, GlobalConvolution
from stream_seg.zoo.segnet import SegNet
from stream_seg.zoo.torchvision_nets import TorchvisionNet
from stream_seg.zoo.unet import UNet, UNetResNet
from tests.zoo.test_operators import make_positive, receptive_field


def test_fcn_crops_at_the_image_border() -> None:
    """Compute the crop offsets from the samples of each map in image coordinates: (distance, position of the first)."""
    border = fcn.BORDER
    pool3, pool4, pool5 = ((2**n, (2**n - 1) / 2 - border) for n in (3, 4, 5))
    score_fr = (32, pool5[1] + 3 * 32)  # fc6, 7x7 without padding
    upscore2 = upsampled_samples(score_fr, 2)
    upscore_pool4 = upsampled_samples(upscore2, 2)
    assert (upscore2[1] - pool4[1]) / 16 == fcn.OFFSET_POOL4
    assert (upscore_pool4[1] - pool3[1]) / 8 == fcn.OFFSET_POOL3
    for stride, below in ((32, score_fr), (16, upscore2), (8, upscore_pool4)):
        assert -upsampled_samples(below, stride)[1] == fcn.OFFSET_IMAGE[stride]


def upsampled_samples(samples: tuple[float, float], factor: int) -> tuple[float, float]:
    """Return the samples after a transposed convolution with a kernel of twice its stride and no padding."""
    step = samples[0] / factor
    return step, samples[1] - step * (factor - 0.5)


def test_fcn_adds_the_scores_of_pool3_and_pool4() -> None:
    torch.manual_seed(0)
    net, image = fcn.FCN(2, stride=8).eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = net(image)
        for layer in (net.score_pool4, net.score_pool3):
            assert layer.bias is not None
            layer.bias += torch.tensor([1.0, 0.0])
            after = net(image)
            # bilinear enlargement keeps a constant
            torch.testing.assert_close(after[:, 0] - before[:, 0], torch.ones(1, 32, 32), atol=1e-3, rtol=0)
            torch.testing.assert_close(after[:, 1], before[:, 1], atol=1e-3, rtol=0)
            before = after


@pytest.mark.parametrize(
    ("stride", "path", "lead"),
    [(32, "fr", 15.5), (16, "fr", 15.5), (8, "fr", 15.5), (16, "pool4", 7.5), (8, "pool4", 7.5), (8, "pool3", 3.5)],
)
def test_fcn_aligns_every_path_with_the_image(stride: Any, path: str, lead: float) -> None:
    """An image that increases by 1 per pixel comes out unchanged but half a cell ahead, because maxima are pooled."""
    net = fcn.FCN(2, stride=stride).eval()
    net.blocks = nn.ModuleList(nn.Identity() for _ in range(5))
    net.fc6, net.fc7 = nn.Conv2d(3, 3, 7), nn.Identity()
    scores = {name: nn.Conv2d(3, 2, 1) for name, _ in net.named_children() if name.startswith("score_")}
    for layer in (net.fc6, *scores.values()):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    for name, layer in scores.items():
        setattr(net, name, layer)
    ramp = torch.arange(160.0) + 1000
    with torch.no_grad():
        net.fc6.weight[0, 0, 3, 3] = 1
        scores[f"score_{path}"].weight[0, 0] = 1
        ahead = (net(ramp.expand(1, 3, 160, 160)) - ramp)[0, 0, 80, 48:112]
    torch.testing.assert_close(ahead, torch.full((64,), lead), atol=1e-2, rtol=0)


def test_fcn_starts_with_the_coarser_networks_predictions() -> None:
    net = fcn.FCN(2, stride=8)
    assert not net.score_pool4.weight.any()
    assert not net.score_pool3.weight.any()
    assert net.score_fr.weight.any()


def test_unet_mirrors_the_border() -> None:
    image, seen = torch.rand(1, 3, 108, 108), list[Tensor]()
    net = UNet(2)
    net.contract[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(image)
    margin, inside = 92, slice(92, 200)
    assert torch.equal(seen[0][..., inside, inside], image)
    assert torch.equal(seen[0][..., margin - 1, inside], image[..., 1, :])
    assert torch.equal(seen[0][..., inside, 200], image[..., :, -2])


def test_unet_drops_out_at_the_end_of_the_contracting_path() -> None:
    shapes = []
    with torch.device("meta"):
        net = UNet(2, padded=True)
        net.dropout.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape[1:])))
        net(torch.zeros(1, 3, 64, 64))
    assert shapes == [(512, 8, 8), (1024, 4, 4)]


def test_unet_turns_572_pixels_into_388() -> None:
    sizes = []
    with torch.device("meta"):
        net = UNet(2)
        for layer in (net.contract[0], net.contract[4], net.score):
            layer.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
        net(torch.zeros(1, 3, 388, 388))
    assert sizes == [572, 32, 388]


@pytest.mark.parametrize(
    ("build", "skips", "first"),
    [
        (lambda: UNet(2, padded=True), {f"contract.{n}": f"expand.{3 - n}" for n in range(4)}, True),
        (lambda: UNet(2), {f"contract.{n}": f"expand.{3 - n}" for n in range(4)}, True),
        (
            lambda: UNetResNet(2, backbone="resnet18"),
            {"encoder.stem": "decoder.3"} | {f"encoder.layers.{n}": f"decoder.{2 - n}" for n in range(3)},
            False,
        ),
        (lambda: DeepLabV3Plus(2, backbone="resnet50"), {"narrow": "decode"}, False),
    ],
    ids=["unet_padded", "unet", "unet_resnet", "deeplab_v3plus"],
)
def test_skips_pass_encoder_features_to_the_decoder(
    build: Callable[[], nn.Module], skips: dict[str, str], first: bool
) -> None:
    """Their middles are concatenated before or after the decoder's own channels."""
    net, made, joined = build().eval(), dict[str, Tensor](), dict[str, Tensor]()
    image = torch.rand(1, 3, 112, 112) if isinstance(net, UNet) else torch.rand(1, 3, 32, 32)
    for start, end in skips.items():
        net.get_submodule(start).register_forward_hook(lambda _, __, x, name=start: made.update({name: x}))
        net.get_submodule(end).register_forward_pre_hook(lambda _, inputs, name=end: joined.update({name: inputs[0]}))
    with torch.no_grad():
        net(image)
    for start, end in skips.items():
        channels = made[start].shape[1]
        middle = center_crop(made[start], list(joined[end].shape[-2:]))
        assert middle.any()
        assert torch.equal(joined[end][:, :channels] if first else joined[end][:, -channels:], middle)


@pytest.mark.parametrize("kind", [SegNet, DeconvNet])
def test_unpooling_restores_the_place_of_a_maximum(kind: type[nn.Module]) -> None:
    """Without its layers a network returns a single bright pixel unchanged, after five poolings."""
    with torch.device("meta"):
        net: Any = kind(2)
    net.encoder, net.decoder = (nn.ModuleList(nn.Identity() for _ in range(5)) for _ in range(2))
    net.fc6 = net.fc7 = net.deconv_fc6 = net.score = nn.Identity()
    image = torch.zeros(1, 1, 224, 224)
    image[..., 21, 42] = 1  # lower left, upper right, lower left, ... of its windows
    assert torch.equal(net(image), image)


@pytest.mark.parametrize("kind", WIDTHS)
def test_the_context_module_starts_as_the_identity(kind: str) -> None:
    torch.manual_seed(0)
    scores = torch.rand(1, 5, 20, 24) + 0.5
    torch.testing.assert_close(build_context(5, WIDTHS[kind])(scores), scores, atol=0.05, rtol=0)
    assert receptive_field(make_positive(build_context(2, WIDTHS[kind])), channels=2) == (67, 67)


def test_the_basic_context_module_has_64_c_squared_weights() -> None:
    weights = [p for p in build_context(21, WIDTHS["basic"]).parameters() if p.dim() == 4]
    assert sum(prod(p.shape) for p in weights) == 64 * 21**2


def test_a_global_convolution_has_a_k_by_k_field_at_a_fraction_of_the_weights() -> None:
    assert receptive_field(make_positive(GlobalConvolution(1, 1, 15)), side=41) == (15, 15)
    layer = GlobalConvolution(256, 21, 15)
    assert sum(p.numel() for p in layer.parameters() if p.dim() == 4) == 2 * 15 * (256 + 21) * 21
    thousands = [sum(p.numel() for p in GlobalConvolution(2048, 21, k).parameters()) // 1000 for k in (3, 5, 7, 9)]
    assert thousands == [260, 434, 608, 782]  # the paper's comparison with k x k convolutions


def test_gcn_adds_up_all_its_scores_and_refinements() -> None:
    """Constants that each part adds reach the output: enlargement starts bilinear, refinements are residuals."""
    net = GCN(2, backbone="resnet18", kernel=3).eval()
    with torch.no_grad():
        for parameter in (*net.globals.parameters(), *net.refine.parameters()):
            parameter.zero_()
        for count, part in enumerate((*(pair[1] for pair in net.globals), *net.refine), start=1):
            part.residual[2].bias.fill_(1)
            assert net(torch.rand(1, 3, 64, 64))[0, :, 32, 32].tolist() == pytest.approx([count] * 2)
        finest = net.refine[-1].residual
        finest[0].bias.fill_(-1)
        finest[2].weight.fill_(1)  # of values that the ReLU sets to 0
        assert net(torch.rand(1, 3, 64, 64))[0, :, 32, 32].tolist() == pytest.approx([9] * 2)


def test_deeplab_v1_pools_before_its_classifier() -> None:
    net, x = DeepLabV1(2), torch.rand(1, 2, 8, 9)
    net.features, net.classify = nn.Identity(), nn.Identity()
    torch.testing.assert_close(net(x), F.avg_pool2d(x, 3, stride=1, padding=1))


def test_the_dilated_vgg_pools_with_overlap_and_keeps_the_size_in_the_last_two() -> None:
    """A maximum between two windows is in both: at 3 and 4 of 8 after three poolings, then one further each."""
    net = DilatedVGG16()
    net.blocks = nn.ModuleList(nn.Identity() for _ in range(5))
    image, expected = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 8, 8)
    image[..., 31, 31], expected[..., 1:7, 1:7] = 1, 1
    assert torch.equal(net(image), expected)


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50"])
def test_deeplab_v2_adds_the_scores_of_all_four_rates(backbone: str) -> None:
    net, image = DeepLabV2(2, backbone=backbone).eval(), torch.rand(1, 3, 17, 17)
    lasts = [branch[-1] if isinstance(branch, nn.Sequential) else branch for branch in net.branches]
    with torch.no_grad():
        for last in lasts:
            nn.init.zeros_(last.weight)
            nn.init.ones_(last.bias)
        assert net(image).unique().tolist() == [4]
        for count, last in zip((3, 2, 1, 0), lasts, strict=True):
            nn.init.zeros_(last.bias)
            assert net(image).unique().tolist() == [count]


def test_deeplab_trades_strides_for_rates() -> None:
    with torch.device("meta"):
        v1, v3 = DeepLabV1(), DeepLabV3()
        assert v3.eval()(torch.zeros(1, 3, 65, 97)).shape[-2:] == (5, 7)
    assert rates(v1.features.blocks[4]) == [2, 2, 2]
    assert rates(v1.classify) == [12]
    assert rates(v3.features.layers[3]) == [2, 4, 8]
    assert rates(v3.aspp) == [6, 12, 18]


def test_deeplab_v2_and_v3plus_and_the_dilated_front_end_have_their_rates() -> None:
    with torch.device("meta"):
        resnet, vgg, plus, front = DeepLabV2(), DeepLabV2(backbone="vgg16"), DeepLabV3Plus(), Dilated(context="none")
    assert rates(resnet.branches) == rates(vgg.branches) == [6, 12, 18, 24]
    assert rates(resnet.features.layers[2]) == [2] * 23
    assert rates(resnet.features.layers[3]) == [4] * 3
    assert rates(vgg.features.blocks[4]) == rates(front.blocks[4]) == [2, 2, 2]
    assert rates(plus.aspp) == [6, 12, 18]
    assert rates(plus.features.layers[3]) == [2, 4, 8]
    assert front.fc6[0].dilation == (4, 4)


def test_deeplab_v2_has_the_crf_of_v1() -> None:
    image = torch.rand(1, 3, 33, 49)
    torch.manual_seed(0)
    net = DeepLabV2(3, backbone="vgg16", crf=True).eval()
    with torch.no_grad():
        sharp = net(image)
        net.crf = None
        assert net(image).shape == sharp.shape
        assert not torch.equal(net(image), sharp)


def rates(net: nn.Module) -> list[int]:
    return [m.dilation[0] for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def test_torchvision_nets_return_auxiliary_scores_in_training_mode() -> None:
    with torch.device("meta"):
        net: Any = TorchvisionNet(5, model="deeplabv3_mobilenet_v3_large")
        image = torch.zeros(2, 3, 64, 96)
        assert [scores.shape for scores in net.train()(image)] == [(2, 5, 64, 96)] * 2
        assert isinstance(net.eval()(image), Tensor)
