"""Adding operators to an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from stream_seg.errors import NetworkError


class Wiring:
    """Operators to be added to a graph. A call adds one and gives the name of what it computes."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._prefix = prefix

    def __call__(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or self._name(operator)
        self.nodes.append(helper.make_node(operator, list(inputs), [out], name=self._name(operator), **attributes))
        return out

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """The name of a constant."""
        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def _name(self, kind: str) -> str:
        return f"{self._prefix}/{len(self.nodes) + len(self.constants)}/{kind}"


def preferred_onnx(serialised: bytes, added: Sequence[float], *, name: str) -> bytes:
    """An interchange ONNX with `added` to its scores, one number for each class, before the largest says the label.

    Raises NetworkError where the network says labels alone.
    """
    model = onnx.load_from_string(serialised)
    nodes = model.graph.node
    place = next((place for place, node in enumerate(nodes) if "scores" in node.output), None)
    if place is None:
        raise NetworkError(f"{name}: says labels, not scores: none of its classes can be preferred")
    plain = f"scores/{len(nodes)}"  # a network may be made to prefer twice
    outputs = nodes[place].output
    outputs[list(outputs).index("scores")] = plain
    add = Wiring(plain)
    add("Add", plain, add.constant(np.reshape(added, (1, -1, 1, 1))), out="scores")
    nodes.insert(place + 1, add.nodes[0])
    model.graph.initializer.extend(add.constants)
    return bytes(model.SerializeToString())
