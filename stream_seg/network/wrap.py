"""Make a user's own ONNX portable: add the pre- and post-processing that its side-car describes to its graph.

    image uint8 (N, H, W, 3) BGR
      cast -> colours -> x gain + offset -> axes -> NETWORK -> heads -> scores -> upsampling -> arg-max -> labels

A network that outputs labels (integers) gets `labels` alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.compose
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from stream_seg.errors import ConfigError
from stream_seg.network.onnx_builder import OnnxBuilder, add_labels, add_scores
from stream_seg.network.onnx_file import INTEGERS, fix_input_size, format_shape, list_inputs, read_onnx, shape_of
from stream_seg.network.sidecar import Head, SideCar

PREFIX = "network/"
"""Prefix of every name of the user's graph, so that none collides with an added one."""


def wrap_onnx(path: Path, sidecar: SideCar, *, where: str) -> tuple[bytes, tuple[int, int]]:
    """Return the portable ONNX of the network at `path`, and the (height, width) of its input.

    Raises NetworkError for the ONNX, ConfigError for a side-car (`where`) that does not fit it.
    """
    model = read_onnx(path)
    size = fix_input_size(model, sidecar, path=path, where=where)
    model = onnx.compose.add_prefix(model, PREFIX)
    source = list_inputs(model)[0]
    batch = shape_of(source)[0] or "batch"
    before, after = OnnxBuilder("before"), OnnxBuilder("after")
    _add_preprocessing(before, source, sidecar, where=where)
    outputs = _add_outputs(after, model, sidecar, size=size, where=where)
    graph = model.graph
    nodes = [*before.nodes, *graph.node, *after.nodes]
    for old in (graph.node, graph.input, graph.output, graph.value_info):
        del old[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, *size, 3]))
    types: dict[str, tuple[int, list[int | str | None]]] = {
        "scores": (TensorProto.FLOAT, [batch, len(sidecar.classes), None, None]),
        "labels": (TensorProto.UINT8, [batch, *size]),
    }
    graph.output.extend(helper.make_tensor_value_info(name, *types[name]) for name in outputs)
    return model.SerializeToString(), size


def _add_preprocessing(add: OnnxBuilder, source: ValueInfoProto, sidecar: SideCar, *, where: str) -> None:
    """Convert `image` to the input of the network: (x / scale - mean) / std, as one multiplication and one addition.

    A network that takes uint8 gets the levels 0-255 unchanged.
    """
    kind, std = source.type.tensor_type.elem_type, np.array(sidecar.std)
    x = add("Cast", "image", to=TensorProto.FLOAT)
    if sidecar.colour == "rgb":
        x = add("Gather", x, add.constant([2, 1, 0], np.int64), axis=3)
    if kind == TensorProto.UINT8:
        for key, neutral in (("scale", 1), ("mean", (0, 0, 0)), ("std", (1, 1, 1))):
            if key in sidecar.model_fields_set and getattr(sidecar, key) != neutral:
                raise ConfigError(f"{where}: {key}: the network takes uint8 with unchanged levels 0-255; remove it")
    else:
        x = add("Mul", x, add.constant(1 / (sidecar.scale * std)))
        x = add("Add", x, add.constant(-np.array(sidecar.mean) / std))
    if sidecar.layout == "nchw":
        x = add("Transpose", x, perm=[0, 3, 1, 2])
    add("Cast", x, to=kind, out=source.name)


def _add_outputs(
    add: OnnxBuilder, model: ModelProto, sidecar: SideCar, *, size: tuple[int, int], where: str
) -> tuple[str, ...]:
    """Add `scores` and `labels`, or `labels` alone, for the outputs of the network. Return their names."""
    values = {value.name.removeprefix(PREFIX): value for value in model.graph.output}
    if not sidecar.heads and len(values) > 1:
        outputs = ", ".join(f"{name} {format_shape(shape_of(value))}" for name, value in values.items())
        rule = "is required, to select the outputs with a class for every pixel from"
        raise ConfigError(f"{where}: heads: {rule}: {outputs}")
    only = next(iter(values))
    if not sidecar.heads and values[only].type.tensor_type.elem_type in INTEGERS:
        add_labels(add, values[only], size=size, where=where)
        return ("labels",)
    heads = sidecar.heads or (Head(output=only, channels=sidecar.classes),)
    scores = add_scores(add, values, heads, sidecar, where=where)
    # target shape: the batch and channels of the scores, the size of the input
    batch = add("Slice", add("Shape", scores), *(add.constant([i], np.int64) for i in (0, 2, 0)))
    shape = add("Concat", batch, add.constant(size, np.int64), axis=0)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    unused = "" if opset >= 13 else add.constant([])  # opsets 11 and 12 require the unused inputs as empty tensors
    full = add("Resize", scores, unused, unused, shape, mode="linear", coordinate_transformation_mode="half_pixel")
    add("Cast", add("ArgMax", full, axis=1, keepdims=0), to=TensorProto.UINT8, out="labels")
    return ("scores", "labels")
