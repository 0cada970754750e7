"""Small ONNX networks for tests, and their outputs computed with numpy alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper, save
from onnxruntime import InferenceSession

SIZE = (16, 24)
CLASSES = ["ground", "wall", "sky"]


def make_model(
    *, outputs: dict[str, int], size: tuple[Any, Any] = SIZE, batch: Any = "n", nhwc: bool = False, opset: int = 17
) -> ModelProto:
    """Return a network that scores every second pixel with a 1x1 convolution, with `outputs` {name: channels}."""
    shape = [batch, *size, 3] if nhwc else [batch, 3, *size]
    nodes, constants, values = [], [], []
    source = "picture"
    if nhwc:
        nodes.append(helper.make_node("Transpose", ["picture"], ["planes"], perm=[0, 3, 1, 2]))
        source = "planes"
    for seed, (name, channels) in enumerate(outputs.items()):
        kernel = make_weights(channels, seed=seed).reshape(channels, 3, 1, 1)
        constants.append(numpy_helper.from_array(kernel, f"kernel {name}"))
        out = f"{name} planes" if nhwc else name
        nodes.append(helper.make_node("Conv", [source, f"kernel {name}"], [out], strides=[2, 2]))
        if nhwc:
            nodes.append(helper.make_node("Transpose", [out], [name], perm=[0, 2, 3, 1]))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4))
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)], values, constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


X = object()
"""Stands for the output so far among the inputs of a step of `extend`."""


def extend(model: ModelProto, *steps: tuple[Any, ...], kind: int = TensorProto.FLOAT) -> ModelProto:
    """Append operators to the only output of a network, which becomes `y` of the type `kind`. Return the network.

    A step is (operator, *inputs, {attribute: value}); numbers and lists become constants, float64 as float32. Without X
    among the inputs the output so far is the first one.
    """
    x, first = model.graph.output[0].name, len(model.graph.node)
    for number, (operator, *rest) in enumerate(steps):
        attributes = rest.pop() if rest and isinstance(rest[-1], dict) else {}
        names = []
        for value in rest if any(value is X for value in rest) else [X, *rest]:
            names.append(value if isinstance(value, str) else f"step {number + first} input {len(names)}")
            if value is X:
                names[-1] = x
            elif not isinstance(value, str):
                array = np.asarray(value)
                kind_of_array = {"f8": np.float32}.get(array.dtype.str[1:], array.dtype)
                model.graph.initializer.append(numpy_helper.from_array(array.astype(kind_of_array), names[-1]))
        x = "y" if number == len(steps) - 1 else f"step {number + first}"
        model.graph.node.append(helper.make_node(operator, names, [x], name=f"{operator} {number}", **attributes))
    if steps:
        del model.graph.output[:]
        model.graph.output.append(ValueInfoProto(name=x))
        model.graph.output[0].type.tensor_type.elem_type = kind  # a backend infers the shape
    return model


def run_alone(model: ModelProto, image: NDArray[np.uint8], *, scale: float = 255) -> Any:
    """Return the only output of a network for a BGR image that it takes as RGB, computed by ONNX Runtime alone."""
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.ascontiguousarray((image[None, ..., ::-1] / scale).transpose(0, 3, 1, 2), np.float32)
    return session.run(None, {"picture": picture})[0]


def make_mask_model(*, least: int) -> ModelProto:
    """Return a detector with scores (objects, 3, 28, 28): one object per bright row, and `least` more."""
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["levels"], ["rows"], axes=[0, 2, 3], keepdims=0),
        helper.make_node("Concat", ["rows", "more"], ["objects"], axis=0),
        helper.make_node("NonZero", ["objects"], ["found"]),
        helper.make_node("Shape", ["found"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "two"], ["count"]),
        helper.make_node("Concat", ["count", "plane"], ["whole"], axis=0),
        helper.make_node("ConstantOfShape", ["whole"], ["scores"]),
    ]
    constants = [
        helper.make_tensor("more", TensorProto.FLOAT, [2], [1.0 * (least > 0), 0.0]),
        *(helper.make_tensor(name, TensorProto.INT64, [1], [i]) for i, name in ((1, "one"), (2, "two"))),
        helper.make_tensor("plane", TensorProto.INT64, [3], [3, 28, 28]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *SIZE, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["objects", 3, 28, 28])
    graph = helper.make_graph(nodes, "masks", [image], [scores], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_weights(channels: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Return the weights of a 1x1 convolution, float32 (channels, 3)."""
    return np.random.default_rng(seed).normal(size=(channels, 3)).astype(np.float32)


def expected_scores(
    image: NDArray[np.uint8], channels: int, *, seed: int = 0, scale: float = 255, mean: Any = 0, std: Any = 1
) -> Any:
    """Return an output of `make_model`, float (channels, h, w), for a BGR image that the network takes as RGB."""
    x = (image[::2, ::2, ::-1] / scale - mean) / std
    return np.einsum("hwc,kc->khw", x, make_weights(channels, seed=seed))


def make_image(size: tuple[int, int] = SIZE, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return noise, uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_network(folder: Path, model: ModelProto, sidecar: dict[str, Any] | None, *, name: str = "mine") -> Path:
    """Write NAME.onnx and, unless it is None, the side-car NAME.yaml. Return the path of the ONNX."""
    path = folder / f"{name}.onnx"
    save(model, path)
    if sidecar is not None:
        path.with_suffix(".yaml").write_text(json.dumps(sidecar))  # JSON is YAML
    return path
