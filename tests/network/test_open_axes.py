"""Open axes and fixed batches: -1, names, and a number of images at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from stream_seg.engines.open import open_engine
from stream_seg.network.network import Network, open_network
from stream_seg.stages.segment import halve_network
from tests.network.test_wrap import error_of
from tests.support import small_networks
from tests.support.small_networks import CLASSES, SIZE, X, extend

BACKENDS = ("openvino", "onnxruntime", "torch")


def write(folder: Path, model: ModelProto, **sidecar: Any) -> Network:
    return open_network(small_networks.write_network(folder, model, {"classes": CLASSES, **sidecar}))


def check_scores(network: Network, backend: str, images: Any, *, channels: int = 3) -> None:
    """Compare the scores of every image with those of numpy."""
    with open_engine(network, backend=backend, precision="f32") as engine:
        scores = engine.infer(images).scores
    assert scores is not None
    assert len(scores) == len(images)
    for image, result in zip(images, scores, strict=True):
        np.testing.assert_allclose(result, small_networks.expected_scores(image, channels), atol=1e-4)


def make_images(count: int, size: tuple[int, int] = SIZE) -> Any:
    return np.stack([small_networks.make_image(size, seed=seed) for seed in range(count)])


def input_batch(network: Network) -> str | int:
    """Return the first axis of the input of a portable network: a number, or a name if it is open."""
    import onnx

    axis = onnx.load_from_string(network.f32).graph.input[0].type.tensor_type.shape.dim[0]
    return axis.dim_value or axis.dim_param


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [-1, 0])
def test_an_axis_of_minus_one_is_open(number: int, backend: str, tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3}, size=("h", "w"), opset=11)
    for value in (*model.graph.input, *model.graph.output):
        for axis in (axis for axis in value.type.tensor_type.shape.dim if not axis.dim_value):
            axis.dim_value = number
    assert "size: is required, [height, width]; input picture of mine.onnx is (?, 3, ?, ?)" in error_of(tmp_path, model)
    network = write(tmp_path, model, size=[32, 40])
    assert network.size == (32, 40)
    check_scores(network, backend, make_images(2, (32, 40)))


def test_names_of_axes_may_repeat(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3}, size=("side", "side"), batch="side")
    check_scores(write(tmp_path, model, size=list(SIZE)), "openvino", make_images(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 2, 4, "n"])
def test_a_batch_that_can_be_one_image_is(batch: int | str, backend: str, tmp_path: Path) -> None:
    network = write(tmp_path, small_networks.make_model(outputs={"out": 3}, batch=batch))
    assert input_batch(network) == ("batch" if batch == "n" else 1)
    check_scores(network, backend, make_images(3))


def make_fixed(batch: int) -> ModelProto:
    """Return a network whose operators only work on `batch` images at a time."""
    shape = [batch, 3, SIZE[0] // 2, SIZE[1] // 2]
    return extend(small_networks.make_model(outputs={"scores": 3}, batch=batch), ("Reshape", shape), ("Identity",))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("batch", "count"), [(4, 1), (4, 4), (4, 6), (2, 3)])
def test_a_fixed_batch_is_filled_with_copies(
    batch: int, count: int, backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = write(tmp_path, make_fixed(batch))
    assert input_batch(network) == batch
    [line] = [record.message for record in caplog.records]
    assert f"takes {batch} images at a time and cannot be reduced to one: every frame is computed {batch} times" in line
    check_scores(network, backend, make_images(count))


@pytest.mark.parametrize(
    "step",
    [
        ("Add", np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)),
        ("Reshape", [1, 12, 8, 12]),
        ("Expand", [4, 3, 8, 12]),
        ("Resize", "", "", [4, 3, 8, 12], {"mode": "nearest"}),
    ],
    ids=lambda step: str(step[0]),
)
def test_operators_that_depend_on_the_batch_keep_it(step: tuple[Any, ...], tmp_path: Path) -> None:
    """One image would be broadcast against constants for four, or reshaped in another way."""
    back = ("Reshape", [4, 3, 8, 12])
    model = extend(small_networks.make_model(outputs={"scores": 3}, batch=4), step, back)
    assert input_batch(write(tmp_path, model)) == 4


@pytest.mark.parametrize("batch", [4, "n"])
def test_a_shape_that_is_computed_does_not_keep_the_batch(batch: Any, tmp_path: Path) -> None:
    steps = [("Shape",), ("Gather", [0]), ("Concat", X, [3, 8, 12], {"axis": 0}), ("Reshape", "scores", X)]
    network = write(tmp_path, extend(small_networks.make_model(outputs={"scores": 3}, batch=batch), *steps))
    assert input_batch(network) == (1 if batch == 4 else "batch")
    check_scores(network, "onnxruntime", make_images(2))


def test_labels_of_a_fixed_batch(tmp_path: Path) -> None:
    """Four label maps for four classes are not the scores of one image."""
    steps = [("Reshape", [4, 3, 8, 12]), ("ArgMax", {"axis": 1, "keepdims": 0}), ("Add", 0)]
    model = extend(small_networks.make_model(outputs={"scores": 3}, batch=4), *steps, kind=TensorProto.INT64)
    network = write(tmp_path, model, classes=["a", "b", "c", "d"])
    with open_engine(network, backend="openvino", precision="f32") as engine:
        labels = engine.infer(make_images(1)).labels
    assert labels is not None
    np.testing.assert_array_equal(labels[0], small_networks.expected_scores(make_images(1)[0], 3).argmax(0))


def test_a_fixed_batch_is_quantized_and_built(tmp_path: Path) -> None:
    from stream_seg.engines.calibration import quantize

    network = write(tmp_path, make_fixed(4))
    assert b"QuantizeLinear" in quantize(network.f32, make_images(4), name="mine")
    pytest.importorskip("tensorrt_rtx")
    from stream_seg.backends.tensorrt.backend import compile_network

    assert compile_network(network, "f32", compute_capability="8.9")


def test_a_network_of_smaller_label_maps_is_resized(tmp_path: Path) -> None:
    model = extend(small_networks.make_model(outputs={"scores": 3}), ("ArgMax", {"axis": 1}), kind=TensorProto.INT64)
    half = halve_network(write(tmp_path, model))
    assert half.size == (8, 12)
    with open_engine(half, backend="openvino", precision="f32") as engine:
        labels = engine.infer(make_images(1, (8, 12))).labels
    assert labels is not None
    assert labels.shape == (1, 4, 6)
