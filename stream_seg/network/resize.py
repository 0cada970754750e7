"""A network at another input: the same weights; a smaller one takes less time and sees less of small things."""

from __future__ import annotations

import re

import onnx
from onnx import ModelProto, numpy_helper
from onnx.shape_inference import InferenceError, infer_shapes

from stream_seg.errors import NetworkError

MULTIPLES = (1, 8, 16, 32, 64)
"""Of which the sides of another input are tried to be: the strides of a network divide one of them."""


def refuse_size(serialised: bytes, was: tuple[int, int], size: tuple[int, int], *, name: str) -> None:
    """Raises NetworkError, before anything is compiled, where what `resized_onnx` made does not compute."""
    has, asked = (f"{height}x{width}" for height, width in (was, size))
    try:
        said = infer_shapes(onnx.load_from_string(serialised), strict_mode=True, data_prop=True).graph.output
    except InferenceError as error:
        where = re.search(r"\(op_type:(\w+)", str(error))
        raise NetworkError(
            f"{name}: takes pictures of {has} (height x width); {asked} does not fit its strides"
            f"{f' (operator {where[1]})' if where else ''}"
        ) from error
    labels = next(tuple(d.dim_value for d in o.type.tensor_type.shape.dim[1:]) for o in said if o.name == "labels")
    if labels not in (size, (0, 0)):  # 0: known when it runs
        raise NetworkError(f"{name}: takes pictures of {has} (height x width) alone, not of {asked}")


def nearest_size(serialised: bytes, was: tuple[int, int], size: tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) next to `size` that an interchange ONNX, taking pictures of `was`, can be made to take; None
    where its graph has its size built in."""
    for multiple in MULTIPLES:
        height, width = (max(1, round(side / multiple)) * multiple for side in size)
        try:
            refuse_size(resized_onnx(serialised, was, (height, width)), was, (height, width), name="")
        except NetworkError:
            continue
        return height, width
    return None


def resized_onnx(serialised: bytes, was: tuple[int, int], size: tuple[int, int]) -> bytes:
    """An interchange ONNX taking pictures of `size` = (height, width), multiples of its strides, instead of `was`.

    Sizes that the exporter wrote into the graph (what `Resize` aims at) change with the input. Whether the result
    computes is for an engine to find out: a graph may have its size built in elsewhere too.
    """
    model = onnx.load_from_string(serialised)
    aims = _aims(model)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name in aims and array.shape and array.size in (2, 4):
            array = array.copy()
            array[-2:] = array[-2:] * size // was
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    del model.graph.value_info[:]  # shapes of the old size
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, old, new in zip(
            dims[1:3] if len(dims) < 4 or dims[3].dim_value == 3 else dims[2:], was, size, strict=False
        ):
            if dim.dim_value:
                dim.dim_value = dim.dim_value * new // old
    return bytes(model.SerializeToString())


def _aims(model: ModelProto) -> set[str]:
    """The names of the values that say how large a Resize makes its picture."""
    made = {output: node for node in model.graph.node for output in node.output}
    aims = {node.input[3] for node in model.graph.node if node.op_type == "Resize" and len(node.input) > 3}
    joined = [made[name] for name in aims if name in made and made[name].op_type == "Concat"]
    return aims.union(*(node.input for node in joined))
