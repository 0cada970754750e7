"""Adding operators to an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper


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
