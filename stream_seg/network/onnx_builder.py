"""Add operators to an ONNX graph, and a bias to the scores of a portable one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stream_seg.errors import NetworkError


def opset_of(model: ModelProto) -> int:
    """Return the opset of ONNX's own operators, 0 for a model without one."""
    return max((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), default=0)


class OnnxBuilder:
    """Operators and constants to add to a graph. A call adds an operator and returns the name of its output."""

    def __init__(self, prefix: str, *, opset: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.opset = opset
        self._prefix = prefix

    def __call__(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or self._make_name(operator)
        name = self._make_name(operator)
        self.nodes.append(helper.make_node(operator, list(inputs), [out], name=name, **attributes))
        return out

    def constant(self, value: Any, dtype: DTypeLike = np.float32) -> str:
        """Add a constant and return its name."""
        name = self._make_name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def drop_axis(self, x: str, axis: int) -> str:
        """Remove an axis, taking its first element. Return the name of the result."""
        return self("Gather", x, self.constant(0, np.int64), axis=axis)

    def insert_axis(self, x: str, axis: int) -> str:
        """Insert an axis of size 1. Return the name of the result."""
        if self.opset < 13:
            return self("Unsqueeze", x, axes=[axis])
        return self("Unsqueeze", x, self.constant([axis], np.int64))

    def _make_name(self, kind: str) -> str:
        return f"{self._prefix}/{len(self.nodes) + len(self.constants)}/{kind}"


def bias_onnx(serialized: bytes, bias: Sequence[float], *, name: str) -> bytes:
    """Return a portable ONNX with a bias for each class added to its scores. Raises NetworkError if it has none."""
    model = onnx.load_from_string(serialized)
    nodes = model.graph.node
    index = next((index for index, node in enumerate(nodes) if "scores" in node.output), None)
    if index is None:
        raise NetworkError(f"{name}: prefer: the network outputs labels, no scores that a number could be added to")
    unbiased = f"scores/{len(nodes)}"  # unique, since a network may be biased twice
    outputs = nodes[index].output
    outputs[list(outputs).index("scores")] = unbiased
    add = OnnxBuilder(unbiased, opset=opset_of(model))
    add("Add", unbiased, add.constant(np.reshape(bias, (1, -1, 1, 1))), out="scores")
    nodes.insert(index + 1, add.nodes[0])
    model.graph.initializer.extend(add.constants)
    return bytes(model.SerializeToString())
