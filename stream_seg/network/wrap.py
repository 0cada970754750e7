"""Make a user's own ONNX portable: add the pre- and post-processing that its side-car describes to its graph.

    image uint8 (N, H, W, 3) BGR
      cast -> colours -> x gain + offset -> axes -> NETWORK -> heads -> scores

A network that outputs a label map gets `labels` instead of `scores`, at the size of that map.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx.compose
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from stream_seg.errors import ConfigError
from stream_seg.network.batch import reduce_batch
from stream_seg.network.heads import add_scores
from stream_seg.network.input_size import fix_input_size
from stream_seg.network.label_map import add_labels, is_label_map
from stream_seg.network.onnx_builder import OnnxBuilder, opset_of
from stream_seg.network.onnx_file import format_shape, list_inputs, read_onnx, shape_of
from stream_seg.network.sidecar import Head, SideCar

PREFIX = "network/"
"""Prefix of every name of the user's graph, so that none collides with an added one."""


def wrap_onnx(path: Path, sidecar: SideCar, *, where: str) -> tuple[bytes, tuple[int, int]]:
    """Return the portable ONNX of the network at `path`, and the (height, width) of its input.

    Raises NetworkError for the ONNX, ConfigError for a side-car (`where`) that does not fit it.
    """
    model = read_onnx(path)
    size = fix_input_size(model, sidecar, path=path, where=where)
    model = onnx.compose.add_prefix(reduce_batch(model, path=path), PREFIX)
    source = list_inputs(model)[0]
    batch = shape_of(source)[0]
    opset = opset_of(model)
    before, after = OnnxBuilder("before", opset=opset), OnnxBuilder("after", opset=opset)
    _add_preprocessing(before, source, sidecar, where=where)
    output = _add_output(after, model, sidecar, batch=batch, where=where)
    graph = model.graph
    nodes = [*before.nodes, *graph.node, *after.nodes]
    for old in (graph.node, graph.input, graph.output, graph.value_info):
        del old[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, [batch or "batch", *size, 3]))
    graph.output.append(output)
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
        steps = {"Mul": (1 / (sidecar.scale * std), 1), "Add": (-np.array(sidecar.mean) / std, 0)}
        for operator, (values, neutral) in steps.items():
            # OpenVINO cannot compile equal factors of the colours before a quantized network, except as one number
            factors = values[0] if len(set(values)) == 1 else values
            if not np.all(values == neutral):
                x = add(operator, x, add.constant(factors))
    if sidecar.layout == "nchw":
        x = add("Transpose", x, perm=[0, 3, 1, 2])
    add("Cast", x, to=kind, out=source.name)


def _add_output(
    add: OnnxBuilder, model: ModelProto, sidecar: SideCar, *, batch: int | None, where: str
) -> ValueInfoProto:
    """Add `scores`, or `labels`, for the outputs of the network. Return it."""
    values = {value.name.removeprefix(PREFIX): value for value in model.graph.output}
    if not sidecar.heads and len(values) > 1:
        outputs = ", ".join(f"{name} {format_shape(shape_of(value))}" for name, value in values.items())
        rule = "is required, to select the outputs with a class for every pixel from"
        raise ConfigError(f"{where}: heads: {rule}: {outputs}")
    only, classes = next(iter(values)), len(sidecar.classes)
    if not sidecar.heads and is_label_map(model, values[only], classes=classes, batch=batch, where=where):
        return _describe("labels", TensorProto.UINT8, add_labels(add, values[only]))
    heads = sidecar.heads or (Head(output=only, channels=sidecar.classes),)
    add_scores(add, model, values, heads, sidecar, batch=batch, where=where)
    return _describe("scores", TensorProto.FLOAT, (batch, classes, None, None))


def _describe(name: str, kind: int, shape: Sequence[int | None]) -> ValueInfoProto:
    batch, *rest = shape
    return helper.make_tensor_value_info(name, kind, [batch or "batch", *rest])
