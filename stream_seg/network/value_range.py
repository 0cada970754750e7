"""The range of the values of an ONNX output, from the operators that compute it.

The threshold between the two classes of an output with one channel follows from it: 0.5 after a Sigmoid (0 to 1), 0 for
logits and after a Tanh (-1 to 1). Interval arithmetic finds it behind any chain of the operators below, such as a
Resize or the mean of two Sigmoids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Range = tuple[float, float]
"""Smallest and largest value; infinite where there is no bound."""
LOGITS: Range = (-math.inf, math.inf)

SAME_VALUES = frozenset({
    "Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather", "Expand",
    "Tile", "Dropout", "DepthToSpace", "SpaceToDepth", "QuantizeLinear", "DequantizeLinear", "Resize", "Upsample",
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceMin",
})  # fmt: skip
"""Operators whose outputs lie in the range of their first input."""
UNION = frozenset({"Concat", "Max", "Min", "Mean", "Where"})
"""Operators whose output lies in the range of all inputs together."""
UNIT = frozenset({
    "Sigmoid", "QLinearSigmoid", "HardSigmoid", "Softmax", "OneHot", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf",
})  # fmt: skip
"""Operators with values from 0 to 1."""
SYMMETRIC = frozenset({"Tanh", "Softsign", "Erf", "Sign"})
"""Operators with values from -1 to 1."""
UNBOUNDED = frozenset({
    "Conv", "ConvTranspose", "QLinearConv", "Gemm", "MatMul", "QLinearMatMul", "Einsum", "BatchNormalization",
    "InstanceNormalization", "LayerNormalization", "GroupNormalization", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu",
    "Mish", "Gelu", "HardSwish",
})  # fmt: skip
"""Operators with values on both sides of 0, where logits are split."""
MONOTONIC: dict[str, Callable[[float], float]] = {
    "Relu": lambda x: max(x, 0),
    "Exp": lambda x: math.exp(min(x, 700)) if x < math.inf else x,
    "Log": lambda x: math.log(x) if x > 0 else -math.inf,
    "Sqrt": lambda x: math.sqrt(max(x, 0)),
    "Floor": lambda x: math.floor(x) if math.isfinite(x) else x,
    "Ceil": lambda x: math.ceil(x) if math.isfinite(x) else x,
    "Round": lambda x: round(x) if math.isfinite(x) else x,
}
COMBINED: dict[str, Callable[[float, float], float]] = {
    "Add": lambda x, y: x + y,
    "Sum": lambda x, y: x + y,
    "Sub": lambda x, y: x - y,
    "Mul": lambda x, y: x * y if x and y else 0.0,
    "Div": lambda x, y: x / y if not (math.isinf(x) and math.isinf(y)) else 0.0,
}
"""Operators of two inputs, by their value at a corner of both ranges."""


class ValueRanges:
    """The ranges of all tensors of a model, computed once from its constants on."""

    def __init__(self, model: ModelProto) -> None:
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
        }
        self._ranges: dict[str, Range | None] = {}
        for node in model.graph.node:  # in topological order
            values = self._compute_range(node)
            self._ranges.update(dict.fromkeys(node.output, values))

    def __getitem__(self, name: str) -> Range | None:
        """Return the range of a tensor, LOGITS for values that are split at 0, None if it is not known."""
        if name not in self._ranges:
            constant = self._constants.get(name)
            self._ranges[name] = None if constant is None else _range_of(numpy_helper.to_array(constant))
        return self._ranges[name]

    def _compute_range(self, node: NodeProto) -> Range | None:
        operator = node.op_type
        if operator in UNBOUNDED:
            return LOGITS
        if operator == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            return _range_of(numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value))
        if operator == "Softmax" and self._is_softmax_of_one(node):
            return 1, 1
        if operator in UNIT or operator in SYMMETRIC:
            return (0, 1) if operator in UNIT else (-1, 1)
        if operator in SAME_VALUES:
            return self[node.input[0]]
        if operator == "ReduceSum":
            return LOGITS if self[node.input[0]] == LOGITS else None
        if operator == "Clip":
            return self._clip(node)
        if operator == "Pad":
            values, padding = self[node.input[0]], self[node.input[2]] if len(node.input) > 2 else (0.0, 0.0)
            return _combine("Concat", [values, padding]) if values and padding else None
        parts = [self[name] for name in (node.input[1:] if operator == "Where" else node.input)]
        ranges = [part for part in parts if part is not None]
        return _combine(operator, ranges) if ranges and len(ranges) == len(parts) else None

    def _clip(self, node: NodeProto) -> Range | None:
        values, *bounds = (self[name] if name else LOGITS for name in node.input)
        lower, upper = (*bounds, LOGITS, LOGITS)[:2]
        if values is None or lower is None or upper is None:
            return None
        return min(max(values[0], lower[0]), upper[1]), max(min(values[1], upper[1]), lower[0])

    def _is_softmax_of_one(self, node: NodeProto) -> bool:
        shape = self._shapes.get(node.output[0]) or self._shapes.get(node.input[0]) or []
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        return -len(shape) <= axis < len(shape) and shape[axis] == 1


def split_of(values: Range | None) -> float | None:
    """Return the default threshold for values of a range: its middle, 0 for logits, None if it is not known."""
    if values is None or math.isinf(values[0]) != math.isinf(values[1]):
        return None
    return 0.0 if math.isinf(values[0]) else (values[0] + values[1]) / 2


def _range_of(values: NDArray[Any]) -> Range | None:
    return (float(values.min()), float(values.max())) if values.size and values.dtype.kind in "fiub" else None


def _combine(operator: str, ranges: Sequence[Range]) -> Range | None:
    """Return the range of an operator's output from those of its inputs, None for an operator that is not known."""
    if operator in UNION:
        return min(low for low, _ in ranges), max(high for _, high in ranges)
    if operator in MONOTONIC:
        low, high = (MONOTONIC[operator](value) for value in ranges[0])
        return low, high
    if operator == "Neg":
        return -ranges[0][1], -ranges[0][0]
    if operator not in COMBINED or (operator == "Div" and ranges[1][0] <= 0 <= ranges[1][1]):
        return None
    result = ranges[0]
    for other in ranges[1:]:
        corners = [COMBINED[operator](x, y) for x, y in product(result, other)]
        result = LOGITS if any(map(math.isnan, corners)) else (min(corners), max(corners))
    return result
