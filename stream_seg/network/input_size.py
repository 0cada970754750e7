"""Find the image among the inputs of a user's ONNX, and fix its size."""

from __future__ import annotations

from pathlib import Path

import onnx.shape_inference
from onnx import ModelProto, TensorProto, ValueInfoProto

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.onnx_file import FLOATS, format_shape, list_inputs, shape_of, type_name
from stream_seg.network.sidecar import SideCar


def fix_input_size(model: ModelProto, sidecar: SideCar, *, path: Path, where: str) -> tuple[int, int]:
    """Fix the size of the input of `model` and infer all shapes from it. Return (height, width)."""
    source = _find_image_input(model, path=path)
    shape = shape_of(source)
    order, axes = {"nchw": ("N, 3, H, W", (1, 2, 3)), "nhwc": ("N, H, W, 3", (3, 1, 2))}[sidecar.layout]
    channels, height, width = (shape[axis] for axis in axes)
    actual = f"input {source.name} of {path.name} is {format_shape(shape)}"
    if channels not in (3, None):
        raise ConfigError(f"{where}: layout: {sidecar.layout} means ({order}); {actual}")
    if sidecar.size is None and not (height and width):
        raise ConfigError(f"{where}: size: is required, [height, width]; {actual}")
    size = sidecar.size or (height or 0, width or 0)
    if (height or size[0], width or size[1]) != size:
        raise ConfigError(f"{where}: size: {list(size)} does not fit, remove it; {actual}")
    for axis, value in zip(axes, (3, *size), strict=True):
        source.type.tensor_type.shape.dim[axis].dim_value = value
    del model.graph.value_info[:]  # shapes of another size
    try:
        model.CopyFrom(onnx.shape_inference.infer_shapes(model, data_prop=True))
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        raise NetworkError(f"{path}: does not take an image of {size[0]} x {size[1]}: {reason}") from error
    return size


def _find_image_input(model: ModelProto, *, path: Path) -> ValueInfoProto:
    values = list_inputs(model)
    if len(values) != 1:
        names = ", ".join(value.name for value in values)
        raise NetworkError(f"{path}: {len(values)} inputs ({names}); expected one, an image")
    value = values[0]
    if len(shape_of(value)) != 4 or value.type.tensor_type.elem_type not in (*FLOATS, TensorProto.UINT8):
        actual = f"input {value.name} is {type_name(value)} {format_shape(shape_of(value))}"
        raise NetworkError(f"{path}: {actual}; expected an image: float or uint8, 4 axes, one of them 3")
    return value
