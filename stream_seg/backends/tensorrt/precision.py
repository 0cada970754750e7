"""Convert a portable ONNX into the number types that TensorRT computes in; a strongly typed network reads them from it.

f32     unchanged
fp16    every tensor in half precision except the uint8 image, the labels and the float32 scores at the output
int8    the quantized form of the network with all zero points moved to 0, as TensorRT requires. Tensors that were not
        quantized stay float32 (half precision scales cost more accuracy than everything else)
fp8     the same in E4M3 (Micikevicius et al., 2022), for GPUs of compute capability 8.9 and above

A user's own network may be quantized itself: its zero points are moved in f32 and fp16 too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import NetworkError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

LARGEST = {"int8": 127.0, "fp8": 448.0}
"""Largest value of a quantized type."""


def convert_precision(onnx: bytes, *, precision: str, name: str) -> bytes:
    """Return an ONNX in `precision`; for int8 and fp8 `onnx` must be the quantized form. Raises NetworkError."""
    if precision == "f32" and b"QuantizeLinear" not in onnx:
        return onnx
    import onnx as library

    model: ModelProto = library.load_from_string(onnx)
    if precision in ("f32", "fp16"):
        if _is_asymmetric(model):
            make_symmetric(model, "int8")
        if precision == "fp16":
            from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

            blocked = [*DEFAULT_OP_BLOCK_LIST, "QuantizeLinear", "DequantizeLinear"]  # their scales are float32
            model = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    elif not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise NetworkError(f"{name}: tensorrt: precision {precision} needs the network's int8 form")
    else:
        make_symmetric(model, precision)
    return bytes(model.SerializeToString())


def make_symmetric(model: ModelProto, precision: str) -> None:
    """Make every quantization of `model` symmetric, in place: int8 or fp8 with zero point 0.

    An activation with the range [a, b] gets the range [-m, m] with m = max(|a|, |b|). Without this TensorRT reads a
    uint8 zero point as an int8 one and cuts off the upper half of everything that follows a ReLU.
    """
    from onnx import TensorProto, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    done: set[str] = set()

    def replace_values(name: str, values: NDArray[Any]) -> None:
        constants[name].CopyFrom(numpy_helper.from_array(values, name))

    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        names = list(node.input)
        if names[0] in constants and constants[names[0]].data_type == TensorProto.INT32:
            _fold_bias(node, constants)
            continue
        if len(names) < 3 or not {names[1], names[2]} <= constants.keys():
            raise NetworkError(f"tensorrt: {node.op_type} {node.name!r}: needs a constant scale and zero point")
        values, scale, zero = names[:3]
        if scale in done:
            continue
        done.add(scale)
        step, shift = numpy_helper.to_array(constants[scale]), numpy_helper.to_array(constants[zero])
        if values in constants:
            weights = numpy_helper.to_array(constants[values])
            if weights.dtype != np.int8 or shift.any():
                raise NetworkError(f"tensorrt: {values!r}: weights must be int8 with zero point 0, got {weights.dtype}")
            largest = step * 127
            replace_values(values, _cast(weights.astype(np.float32) * (LARGEST[precision] / 127), precision))
        else:
            limits, centre = np.iinfo(shift.dtype), shift.astype(np.int32)
            largest = step * np.maximum(centre - limits.min, limits.max - centre)
        replace_values(scale, (largest / LARGEST[precision]).astype(step.dtype))
        replace_values(zero, _cast(np.zeros(shift.shape, np.float32), precision))
    del model.graph.value_info[:]  # lists the old types


def _fold_bias(node: NodeProto, constants: Mapping[str, TensorProto]) -> None:
    """Turn the DequantizeLinear of an int32 bias, which TensorRT lacks, into the bias itself."""
    from onnx import numpy_helper

    bias, scale = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
    constants[node.input[0]].CopyFrom(numpy_helper.from_array((bias * scale).astype(np.float32), node.input[0]))
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]


def _is_asymmetric(model: ModelProto) -> bool:
    """Return True if a network has a zero point that is not an int8 0."""
    from onnx import TensorProto, numpy_helper

    zeros = {
        name for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear") for name in n.input[2:]
    }
    tensors = (tensor for tensor in model.graph.initializer if tensor.name in zeros)
    return any(t.data_type != TensorProto.INT8 or numpy_helper.to_array(t).any() for t in tensors)


def _cast(values: NDArray[np.float32], precision: str) -> NDArray[Any]:
    if precision == "int8":
        return np.rint(values).astype(np.int8)
    import ml_dtypes

    return values.astype(ml_dtypes.float8_e4m3fn)
