"""Change the input size of a network. The weights stay; a smaller input is faster and misses small objects."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

import onnx
from onnx import numpy_helper
from onnx.shape_inference import InferenceError, infer_shapes

from stream_seg.errors import NetworkError

MULTIPLES = (1, 8, 16, 32, 64)
"""Multiples that the sides of another input are rounded to; the strides of a network divide one of them."""


def check_size(serialized: bytes, old: tuple[int, int], new: tuple[int, int], *, name: str) -> None:
    """Raise NetworkError if the result of `resize_onnx` does not compute; compiles nothing."""
    old_text, new_text = (f"{height}x{width}" for height, width in (old, new))
    model = onnx.load_from_string(serialized)
    try:
        inferred = infer_shapes(model, strict_mode=True, data_prop=True)
    except InferenceError as error:
        operator = re.search(r"\(op_type:(\w+)", str(error))
        place = f" (operator {operator[1]})" if operator else ""
        fault = f"{new_text} does not fit its strides{place}"
        raise NetworkError(f"{name}: takes images of {old_text} (height x width); {fault}") from error
    for value, declared in zip(inferred.graph.output, model.graph.output, strict=True):
        sides, declared_sides = (
            tuple(dim.dim_value for dim in output.type.tensor_type.shape.dim[1:]) for output in (value, declared)
        )
        # 0: only known when it runs; a label map may be smaller than the image
        if value.name == "labels" and sides not in (new, declared_sides, (0, 0)):
            raise NetworkError(f"{name}: only takes images of {old_text} (height x width), not of {new_text}")


def find_size(serialized: bytes, old: tuple[int, int], sizes: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the first of `sizes` that a portable ONNX of size `old` can be resized to, None if it fits none."""
    for size in sizes:
        with suppress(NetworkError):
            check_size(resize_onnx(serialized, old, size), old, size, name="")
            return size
    return None


def resize_onnx(serialized: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """Return a portable ONNX that takes images of `new` = (height, width), multiples of its strides, instead of `old`.

    Target sizes of `Resize` operators, which exporters write into the graph as constants, are scaled with the input.
    `check_size` tells whether the result computes: a graph may depend on its size elsewhere too.
    """
    model = onnx.load_from_string(serialized)
    producers = {output: node for node in model.graph.node for output in node.output}
    targets = {node.input[3] for node in model.graph.node if node.op_type == "Resize" and len(node.input) > 3}
    joined = [producers[name] for name in targets if name in producers and producers[name].op_type == "Concat"]
    targets.update(*(node.input for node in joined))  # the parts of a size that is put together
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name in targets and array.shape and array.size in (2, 4):
            array = array.copy()
            array[-2:] = array[-2:] * new // old
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    del model.graph.value_info[:]  # shapes of the old size
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        sides = dims[1:3] if len(dims) < 4 or dims[3].dim_value == 3 else dims[2:]
        for dim, old_side, new_side in zip(sides, old, new, strict=False):
            if dim.dim_value:
                dim.dim_value = dim.dim_value * new_side // old_side
    return bytes(model.SerializeToString())
