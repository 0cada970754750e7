"""Tests of the operators against torch's own and against examples by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import deeplabv3 as torchvision_deeplab

from stream_seg.backends.tensorrt.build import build_plan, list_compute_capabilities
from stream_seg.training.export import export_onnx
from stream_seg.zoo import operators
from stream_seg.zoo.operators import (
    ASPP,
    atrous,
    bilinear_transposed,
    max_pool_with_indices,
    max_unpool,
)


def grid(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def receptive_field(net: nn.Module, *, channels: int = 1, side: int = 101) -> tuple[int, int]:
    """Return height and width of the receptive field of the middle output, from its gradient."""
    image = torch.zeros(1, channels, side, side, requires_grad=True)
    net(image)[0, 0, side // 2, side // 2].backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0) > 0
    return int(seen.any(1).sum()), int(seen.any(0).sum())


def make_positive(net: nn.Module) -> nn.Module:
    """Set all weights to a positive value, so that no contribution cancels another."""
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    return net


def test_the_bilinear_kernel_of_stride_2() -> None:
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(operators.bilinear_kernel(2), torch.outer(row, row))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_transposed_convolution_starts_as_bilinear_interpolation(factor: int) -> None:
    x = noise(1, 3, 6, 7)
    made = bilinear_transposed(3, factor, padding=factor // 2)(x)
    inside = (..., slice(factor, -factor), slice(factor, -factor))  # at the border one pads zeros, the other copies
    expected = operators.upsample_bilinear(x, (6 * factor, 7 * factor))
    torch.testing.assert_close(made[inside], expected[inside])


def test_bilinear_upsampling_by_hand() -> None:
    assert torch.equal(operators.upsample_bilinear(grid([[0, 1]]), (1, 4)), grid([[0, 0.25, 0.75, 1]]))


def test_unpooling_without_indices_by_hand() -> None:
    x = grid([[1, 2], [3, 4]])
    nearest = grid([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    nails = grid([[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]])
    assert torch.equal(operators.unpool_nearest(x), nearest)
    assert torch.equal(operators.unpool_bed_of_nails(x), nails)
    assert torch.equal(operators.unpool_bed_of_nails(noise(2, 3, 2, 2), 3)[..., 0::3, 0::3], noise(2, 3, 2, 2))


def test_max_unpooling_by_hand() -> None:
    pooled, indices = max_pool_with_indices(grid([[1, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]))
    assert torch.equal(pooled, grid([[5, 6], [7, 8]]))
    assert torch.equal(indices, grid([[3, 0], [2, 3]]))
    back = max_unpool(grid([[1, 2], [3, 4]]), indices, (4, 4))
    assert torch.equal(back, grid([[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]))


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (1, 2)])
def test_max_unpooling_equals_torchs_for_ties_too(size: tuple[int, int]) -> None:
    x = noise(2, 3, *size).relu()  # a quarter of the windows have several maxima: zeros
    expected, places = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    pooled, indices = max_pool_with_indices(x)
    assert torch.equal(pooled, expected)
    values = noise(*pooled.shape)
    height, width = size
    rows, columns = places // width, places % width
    assert torch.equal(indices, (rows % 2 * 2 + columns % 2).float())
    assert torch.equal(
        max_unpool(values, indices, size), F.max_unpool2d(values, places, [2, 2], output_size=[height, width])
    )


def test_an_atrous_convolution_is_a_larger_one_with_holes() -> None:
    layer, x = atrous(2, 3, rate=2), noise(1, 2, 9, 9)
    holed = torch.zeros(3, 2, 5, 5)
    holed[..., ::2, ::2] = layer.weight.detach()
    torch.testing.assert_close(layer(x), F.conv2d(x, holed, layer.bias, padding=2))


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
def test_stacked_atrous_convolutions_have_an_exponential_field_at_linear_parameters(layers: int) -> None:
    net = nn.Sequential(*(make_positive(atrous(1, 1, rate=2**i)) for i in range(layers)))
    plain = nn.Sequential(*(make_positive(atrous(1, 1, rate=1)) for _ in range(layers)))
    assert receptive_field(net) == (2 ** (layers + 1) - 1,) * 2
    assert receptive_field(plain) == (2 * layers + 1,) * 2
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in plain.parameters()) == 10 * layers


def test_aspp_equals_torchvisions() -> None:
    torch.manual_seed(0)
    ours, theirs = ASPP(4, 8, rates=(2, 3, 4)).eval(), torchvision_deeplab.ASPP(4, [2, 3, 4], 8).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = noise(1, 4, 20, 30)
    torch.testing.assert_close(ours(x), theirs(x))


class Unpooled(nn.Module):
    """A convolution followed by both unpoolings without indices."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return operators.unpool_nearest(x) + operators.unpool_bed_of_nails(x)


def test_unpooling_without_indices_exports_and_builds_everywhere(tmp_path: Path) -> None:
    """No network of the zoo uses it; unpooling by indices is exported with DeconvNet and SegNet."""
    torch.manual_seed(0)
    net, image = Unpooled().eval(), torch.randint(256, (2, 16, 16, 3), dtype=torch.uint8)
    export_onnx(net, tmp_path / "net.onnx", size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))
    with torch.no_grad():
        expected = net(image.permute(0, 3, 1, 2) / 255).numpy()
    network = (tmp_path / "net.onnx").read_bytes()
    scores, _ = ort.InferenceSession(network).run(None, {"image": image.numpy()})
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as backends/openvino.py does
    import openvino as ov

    compiled: Any = ov.Core().compile_model(tmp_path / "net.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(image.numpy())["scores"], expected, atol=1e-5)
    plan = build_plan(
        network,
        precision="f32",
        size=(16, 16),
        batch=(1, 2),
        compute_capability=list_compute_capabilities()[0],
        name="net",
    )
    assert plan


def test_aspp_keeps_the_size_and_sees_the_whole_image() -> None:
    torch.manual_seed(0)
    aspp = ASPP(4, 8, rates=(2, 3)).eval()
    x = noise(1, 4, 20, 30)
    changed = x.clone()
    changed[..., 0, 0] += 50
    assert aspp(x).shape == (1, 8, 20, 30)
    assert (aspp(x) != aspp(changed))[0, :, 15, 25].any()  # farther away than any rate: through image pooling
    weights = [layer.weight.shape[1:] for layer in aspp.modules() if isinstance(layer, nn.Conv2d)]
    assert weights == [(4, 1, 1), (4, 3, 3), (4, 3, 3), (4, 1, 1), (32, 1, 1)]
