"""Outputs with one channel and two classes: the threshold follows from the operators before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import helper

from stream_seg.engines.open import open_engine
from stream_seg.evaluation.images import evaluate_images
from stream_seg.network.network import open_network
from stream_seg.network.value_range import LOGITS, ValueRanges, split_of
from tests.network.test_wrap import error_of
from tests.support import small_networks
from tests.support.small_networks import X, extend

BACKENDS = ("openvino", "onnxruntime", "torch")
CLASSES = {"classes": ["other", "object"]}
NHWC = {"perm": [0, 2, 3, 1]}
CHAINS: dict[str, tuple[list[tuple[Any, ...]], float]] = {
    "logits": ([], 0),
    "logits, resized": ([("Resize", "", "", [1, 1, 16, 24], {"mode": "linear"}), ("Identity",)], 0),
    "Tanh": ([("Tanh",)], 0),
    "Sigmoid": ([("Sigmoid",)], 0.5),
    "HardSigmoid": ([("HardSigmoid",)], 0.5),
    "Resize": ([("Sigmoid",), ("Resize", "", "", [1, 1, 16, 24], {"mode": "linear"})], 0.5),
    "Transpose": ([("Sigmoid",), ("Transpose", NHWC), ("Identity",)], 0.5),
    "Cast": ([("Sigmoid",), ("Cast", {"to": 11}), ("Cast", {"to": 1})], 0.5),
    "Squeeze": ([("Sigmoid",), ("Squeeze", [1])], 0.5),
    "Reshape": ([("Sigmoid",), ("Reshape", [8, 12])], 0.5),
    "Clip": ([("Sigmoid",), ("Clip", np.float32(0.001), np.float32(0.999))], 0.5),
    "Slice": ([("Sigmoid",), ("Slice", [0], [4], [2]), ("Concat", X, X, {"axis": 2})], 0.5),
    "Max of two": ([("Sigmoid",), ("Max", X, X)], 0.5),
    "1 - x": ([("Sigmoid",), ("Sub", 1.0, X)], 0.5),
    "255 x": ([("Sigmoid",), ("Mul", 255.0)], 127.5),
    "mean of two": ([("Sigmoid",), ("Add", X, X), ("Div", 2.0)], 0.5),
    "exponential form": ([("Neg",), ("Exp",), ("Add", 1.0), ("Div", 1.0, X)], 0.5),
    "Softmax of two": (
        [("Neg",), ("Concat", X, "scores", {"axis": 1}), ("Softmax", {"axis": 1}), ("Gather", [1], {"axis": 1})], 0.5,
    ),
    "threshold inside": ([("Sigmoid",), ("Greater", 0.5), ("Cast", {"to": 1})], 0.5),
    "quantized": (
        [
            ("Sigmoid",),
            ("QuantizeLinear", np.float32(1 / 255), np.uint8(0)),
            ("DequantizeLinear", np.float32(1 / 255), np.uint8(0)),
        ],
        0.5,
    ),
}  # fmt: skip
"""Operators behind the scores of a network, and the value at which their output is split."""


def make_model(steps: list[tuple[Any, ...]]) -> Any:
    model = small_networks.make_model(outputs={"scores": 1}, batch=1)
    model.graph.initializer[0].raw_data = np.array([4, -4, 0.5], np.float32).tobytes()
    return extend(model, *steps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CHAINS)
def test_the_default_threshold_follows_the_operators(name: str, backend: str, tmp_path: Path) -> None:
    steps, split = CHAINS[name]
    if backend == "torch" and name == "quantized":
        pytest.skip("torch has no quantized operators")
    model, image = make_model(steps), small_networks.make_image()
    values = small_networks.run_alone(model, image)
    expected = np.squeeze(values) > split
    assert 0.2 < expected.mean() < 0.8
    path = small_networks.write_network(tmp_path, model, CLASSES)
    with open_engine(open_network(path), backend=backend, precision="f32") as engine:
        scores = engine.infer(image[None]).scores
    assert scores is not None
    np.testing.assert_array_equal(scores[0].argmax(0), expected)


def test_a_sigmoid_head_has_a_miou_of_100(tmp_path: Path) -> None:
    """A red bar in the left quarter of the image, which the network finds exactly."""
    model = small_networks.make_model(outputs={"scores": 1}, size=(64, 96))
    weights = np.array([6, -3, -3], np.float32).reshape(1, 3, 1, 1)
    model.graph.initializer[0].raw_data = weights.tobytes()
    path = small_networks.write_network(tmp_path, extend(model, ("Sub", 1.0), ("Sigmoid",)), CLASSES)
    image, labels = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
    image[:, :24], labels[:, :24] = (0, 0, 255), 1
    for folder, array in (("val", image), ("valannot", labels)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "bar.png"), array)
    report = evaluate_images(str(path), tmp_path, precision="f32")
    assert report["miou"] == 1


def test_a_threshold_is_required_where_the_operators_do_not_tell(tmp_path: Path) -> None:
    def message(*steps: tuple[Any, ...], **sidecar: Any) -> str:
        return error_of(tmp_path, make_model(list(steps)), **CLASSES, **sidecar)

    one_sided = "mine.yaml: heads: threshold: output y has values from 0 to inf; say where its classes are split"
    assert one_sided in message(("Exp",))
    assert "from -inf to 0" in message(("Sigmoid",), ("Log",))
    assert "output y has values of an unknown range; say where" in message(("Pow", 2.0), ("Reciprocal",))
    assert "for example heads: [{output: y, channels: [other, object], threshold: 0.5}]" in message(("Exp",))
    assert "is 1 everywhere; export it without a Softmax" in message(("Softmax", {"axis": 1}))
    head = {"output": "y", "channels": ["other", "object"]}
    for threshold in (0, 1, 2, -0.5):
        fault = f"has values from 0 to 1; {threshold:g} would give every pixel the same class"
        assert fault in message(("Sigmoid",), heads=[{**head, "threshold": threshold}])
    for threshold in (0.3, 0.0):
        steps = [("Exp",)] if threshold else []
        sidecar = {**CLASSES, "heads": [{**head, "output": "y" if steps else "scores", "threshold": threshold}]}
        assert open_network(small_networks.write_network(tmp_path, make_model(steps), sidecar))


@pytest.mark.parametrize(
    ("steps", "values"),
    [
        ([("Relu",)], (0, np.inf)),
        ([("LeakyRelu",)], LOGITS),
        ([("Sigmoid",), ("Mul", X, "scores")], LOGITS),
        ([("Sigmoid",), ("Sub", 0.5)], (-0.5, 0.5)),
        ([("Tanh",), ("Add", 1.0), ("Mul", -0.5)], (-1, 0)),
        ([("Sigmoid",), ("Log",)], (-np.inf, 0)),
        ([("Sigmoid",), ("Pad", [0, 0, 1, 1, 0, 0, 1, 1], np.float32(-4))], (-4, 1)),
        ([("Clip", np.float32(-3), "")], (-3, np.inf)),
        ([("Add", 3.0), ("Clip", np.float32(0), np.float32(6)), ("Div", 6.0)], (0, 1)),
        ([("Sigmoid",), ("Where", [[[[True]]]], X, "scores")], LOGITS),
        ([("Sigmoid",), ("Div", 1.0, X)], None),
        ([("Sigmoid",), ("ReduceSum", [1])], None),
        ([("ReduceSum", [1])], LOGITS),
        ([("Mish",)], LOGITS),
        ([("Sin",)], None),
    ],
)
def test_the_range_of_values(steps: list[tuple[Any, ...]], values: Any) -> None:
    ranges = ValueRanges(make_model(steps))
    assert ranges["y"] == values
    assert (split_of(ranges["y"]) is None) == (values is None or np.isinf(values[0]) != np.isinf(values[1]))


@pytest.mark.parametrize("attribute", [{"value_float": 2.0}, {"value_floats": [2.0]}, {"value_int": 2}])
def test_the_range_of_a_constant_in_an_attribute(attribute: dict[str, Any]) -> None:
    model = make_model([("Sigmoid",), ("Mul", X, "two")])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["two"], **attribute))
    assert ValueRanges(model)["y"] == (0, 2)
