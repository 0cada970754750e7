"""Tests of the road network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from stream_seg.training.export import export_onnx
from stream_seg.zoo.road import AtrousPyramid, Decode, Residual, RoadNet
from stream_seg.zoo.weights.input_spec import InputSpec

MEAN, STD = (0.43, 0.42, 0.41), (0.31, 0.31, 0.31)


@pytest.fixture(scope="module")
def net() -> RoadNet:
    torch.manual_seed(3)
    return RoadNet(11)


@pytest.mark.parametrize("classes", [2, 11, 19])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (80, 50)])
def test_scores_have_half_the_size_for_any_classes_and_size(classes: int, height: int, width: int) -> None:
    scores = RoadNet(classes).eval()(torch.rand(2, 3, height, width))
    assert scores.shape == (2, classes, (height + 1) // 2, (width + 1) // 2)
    assert scores.isfinite().all()


def test_training_mode_returns_auxiliary_scores_and_reaches_the_first_layer(net: RoadNet) -> None:
    scores, auxiliary = net.train()(torch.rand(2, 3, 64, 96))
    assert auxiliary.shape == (2, 11, 4, 6)
    (scores.sum() + auxiliary.sum()).backward()
    assert next(net.parameters()).grad.abs().sum() > 0  # type: ignore[union-attr]


def test_every_width_suits_matrix_units(net: RoadNet) -> None:
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.out_channels for m in convolutions} - {11} == {32, 64, 128, 192}
    assert all(m.groups == 1 for m in convolutions)


def test_a_residual_block_without_weights_is_the_identity() -> None:
    block, x = Residual(32).eval(), torch.randn(1, 32, 6, 8)
    for layer in (block.first[0], block.second[0]):
        torch.nn.init.zeros_(layer.weight)
    torch.testing.assert_close(block(x), x.relu())


def test_a_decoder_can_represent_a_convolution_of_the_concatenation() -> None:
    torch.manual_seed(0)
    decode, x, skip = Decode(8, 6, 4).eval(), torch.randn(1, 8, 5, 7), torch.randn(1, 6, 10, 14)
    mix, up = torch.randn(4, 4 + 6, 3, 3), torch.zeros(4, 4, 4, 4)
    for row, column, down, right in np.ndindex(3, 3, 2, 2):  # a tap of the mix, and the pixel of a cell that it is for
        vertical, horizontal = down + 1 - (row + down - 1) // 2 * 2, right + 1 - (column + right - 1) // 2 * 2
        up[:, :, vertical, horizontal] += mix[:, :4, row, column].T
    with torch.no_grad():
        decode.up.weight.copy_(up)
        decode.skip.weight.copy_(mix[:, 4:])
        both = torch.cat([torch.nn.functional.interpolate(decode.narrow(x), scale_factor=2), skip], dim=1)
        expected = decode.norm(torch.nn.functional.conv2d(both, mix, padding=1)).relu()
        torch.testing.assert_close(decode(x, skip), expected)


def test_the_context_sees_the_whole_image() -> None:
    torch.manual_seed(0)
    context, x = AtrousPyramid(32, 32, rates=(2, 3)).eval(), torch.randn(1, 32, 20, 30)
    changed = x.clone()
    changed[..., 0, 0] += 50
    assert (context(x) != context(changed))[0, :, 15, 25].any()  # farther away than any rate


def test_the_export_equals_torch(net: RoadNet, tmp_path: Path) -> None:
    path = tmp_path / "road.onnx"
    export_onnx(net, path, size=(64, 96), spec=InputSpec(MEAN, STD))
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 96, 3), np.uint8)
    (scores,) = ort.InferenceSession(path).run(None, {"image": images})
    with torch.no_grad():
        normalised = (torch.from_numpy(images).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        expected = net.eval()(normalised.permute(0, 3, 1, 2))
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-3)
    assert b"stack_trace" not in path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
