"""Tests of the operators against torch's own and against examples by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.zoo.operators import atrous, bilinear_transposed, max_pool_with_indices, max_unpool


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


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_transposed_convolution_starts_as_bilinear_interpolation(factor: int) -> None:
    x = noise(1, 3, 6, 7)
    made = bilinear_transposed(3, factor, padding=factor // 2)(x)
    inside = (..., slice(factor, -factor), slice(factor, -factor))  # at the border one pads zeros, the other copies
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear")
    torch.testing.assert_close(made[inside], expected[inside])


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
