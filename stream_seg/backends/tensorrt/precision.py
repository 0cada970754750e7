"""An interchange ONNX in the number types that TensorRT is to compute in. A strongly typed network takes them from it.

f32     as it is
fp16    every tensor in half precision but the uint8 picture, the labels, and the scores as they leave (float32)
int8    the network's quantised form, its zero points moved to 0: TensorRT knows no others. What the quantiser left in
        floating point stays float32 (half precision scales cost more accuracy than all else)
fp8     the same in E4M3 (Micikevicius et al., 2022), for GPUs of compute capability 8.9 and above
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.engine import one_line
from stream_seg.errors import NetworkError

if TYPE_CHECKING:
    from onnx import ModelProto

PRECISIONS = ("f32", "fp16", "int8", "fp8")
LARGEST = {"int8": 127.0, "fp8": 448.0}


def typed(onnx: bytes, *, precision: str, name: str) -> bytes:
    """A serialised ONNX in `precision`; for int8 and fp8 `onnx` is the quantised form. Raises NetworkError."""
    if precision not in PRECISIONS:
        raise NetworkError(f"{name}: tensorrt: unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if precision == "f32":
        return onnx
    import onnx as library
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model: ModelProto = library.load_from_string(onnx)
    except DecodeError as error:
        raise NetworkError(f"{name}: not an ONNX file: {one_line(error)}") from error
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    elif not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise NetworkError(f"{name}: tensorrt: precision {precision} needs the network's quantised form")
    else:
        requantise(model, precision)
    serialised: bytes = model.SerializeToString()
    return serialised


def requantise(model: ModelProto, precision: str) -> None:
    """Make every quantisation of `model` symmetric, in place: int8 or fp8 with zero point 0.

    A quantised activation that reached from a to b now reaches from -max(|a|, |b|) to it. Without this TensorRT reads
    a uint8 zero point as an int8 one and cuts off the upper half of whatever follows a ReLU.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    done: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        names = list(node.input)
        if len(names) < 3 or not {names[1], names[2]} <= constants.keys():
            raise NetworkError(f"tensorrt: {node.op_type} {node.name!r}: needs a constant scale and zero point")
        if names[1] not in done:
            _change(constants, names, precision)
            done.add(names[1])
    del model.graph.value_info[:]  # it gives the old types


def _change(constants: dict[str, Any], names: list[str], precision: str) -> None:
    """Rewrite the scale and the zero point of one quantisation, and the weights where it holds some."""
    from onnx import numpy_helper

    values, scale, zero = names[:3]
    step, shift = numpy_helper.to_array(constants[scale]), numpy_helper.to_array(constants[zero])
    if values in constants:
        weights = numpy_helper.to_array(constants[values])
        if weights.dtype != np.int8 or shift.any():
            raise NetworkError(f"tensorrt: {values!r}: weights must be int8 with zero point 0, got {weights.dtype}")
        largest = step * 127
        put(constants[values], _stored(weights.astype(np.float32) * (LARGEST[precision] / 127), precision))
    else:
        limits, centre = np.iinfo(shift.dtype), shift.astype(np.int32)
        largest = step * np.maximum(centre - limits.min, limits.max - centre)
    put(constants[scale], (largest / LARGEST[precision]).astype(step.dtype))
    put(constants[zero], _stored(np.zeros(shift.shape, np.float32), precision))


def _stored(values: NDArray[np.float32], precision: str) -> NDArray[Any]:
    if precision == "int8":
        return np.rint(values).astype(np.int8)
    import ml_dtypes

    return values.astype(ml_dtypes.float8_e4m3fn)


def put(tensor: Any, values: NDArray[Any]) -> None:
    """Give a constant of an ONNX graph other values, under its name."""
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
