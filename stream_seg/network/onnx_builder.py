"""Add operators to an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from stream_seg.errors import NetworkError


class OnnxBuilder:
    """Operators and constants to add to a graph. A call adds an operator and returns the name of its output."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._prefix = prefix

    def __call__(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or self._make_name(operator)
        name = self._make_name(operator)
        self.nodes.append(helper.make_node(operator, list(inputs), [out], name=name, **attributes))
        return out

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant and return its name."""
        name = self._make_name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def _make_name(self, kind: str) -> str:
        return f"{self._prefix}/{len(self.nodes) + len(self.constants)}/{kind}"


def bias_onnx(serialized: bytes, bias: Sequence[float], *, name: str) -> bytes:
    """Return a portable ONNX with `bias`, one number per class, added to its scores before the arg-max.

    Raises NetworkError for a network that outputs labels alone.
    """
    model = onnx.load_from_string(serialized)
    nodes = model.graph.node
    index = next((index for index, node in enumerate(nodes) if "scores" in node.output), None)
    if index is None:
        raise NetworkError(f"{name}: prefer: the network outputs labels, no scores that a number could be added to")
    unbiased = f"scores/{len(nodes)}"  # unique, since a network may be biased twice
    outputs = nodes[index].output
    outputs[list(outputs).index("scores")] = unbiased
    add = OnnxBuilder(unbiased)
    add("Add", unbiased, add.constant(np.reshape(bias, (1, -1, 1, 1))), out="scores")
    nodes.insert(index + 1, add.nodes[0])
    model.graph.initializer.extend(add.constants)
    return bytes(model.SerializeToString())
