"""Make an interchange ONNX of a user's own network: what its side-car says goes into its graph.

    image uint8 (N, H, W, 3) BGR
      cast -> colours -> x gain + offset -> axes -> NETWORK -> heads -> scores -> enlarge -> arg-max -> labels

So every backend meets the same: uint8 pictures in, scores and labels out. A network that says labels itself (integers)
gives `labels` alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.compose
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from stream_seg.errors import ConfigError
from stream_seg.network.heads import add_labels, add_scores
from stream_seg.network.onnx_builder import Wiring
from stream_seg.network.onnx_file import INTEGERS, dims, inputs, read, said, sized
from stream_seg.network.sidecar import Head, SideCar

PREFIX = "network/"
"""Put before every name of the user's graph, so that none meets one of ours."""


def interchange(path: Path, sidecar: SideCar, *, where: str) -> tuple[bytes, tuple[int, int]]:
    """The interchange ONNX of the network at `path`, and its input's (height, width).

    Raises NetworkError for the ONNX, ConfigError for what the side-car (`where`) says of it.
    """
    model = read(path)
    size = sized(model, sidecar, path=path, where=where)
    model = onnx.compose.add_prefix(model, PREFIX)
    source = inputs(model)[0]
    batch = dims(source)[0] or "batch"
    before, after = Wiring("before"), Wiring("after")
    _prepare(before, source, sidecar, where=where)
    outputs = _finish(after, model, sidecar, size=size, where=where)
    graph = model.graph
    nodes = [*before.nodes, *graph.node, *after.nodes]
    for rewritten in (graph.node, graph.input, graph.output, graph.value_info):
        del rewritten[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, *size, 3]))
    kinds: dict[str, tuple[int, list[int | str | None]]] = {
        "scores": (TensorProto.FLOAT, [batch, len(sidecar.classes), None, None]),
        "labels": (TensorProto.UINT8, [batch, *size]),
    }
    graph.output.extend(helper.make_tensor_value_info(name, *kinds[name]) for name in outputs)
    return model.SerializeToString(), size


def _prepare(add: Wiring, source: ValueInfoProto, sidecar: SideCar, *, where: str) -> None:
    """From `image` to what the network takes: (x / scale - mean) / std, as one multiplication and one addition.

    A network that takes uint8 gets the levels as they are.
    """
    kind, std = source.type.tensor_type.elem_type, np.array(sidecar.std)
    x = add("Cast", "image", to=TensorProto.FLOAT)
    if sidecar.colour == "rgb":
        x = add("Gather", x, add.constant([2, 1, 0], np.int64), axis=3)
    if kind == TensorProto.UINT8:
        _refuse_arithmetic(sidecar, where=where)
    else:
        x = add("Mul", x, add.constant(1 / (sidecar.scale * std)))
        x = add("Add", x, add.constant(-np.array(sidecar.mean) / std))
    if sidecar.layout == "nchw":
        x = add("Transpose", x, perm=[0, 3, 1, 2])
    add("Cast", x, to=kind, out=source.name)


def _refuse_arithmetic(sidecar: SideCar, *, where: str) -> None:
    """Raise ConfigError for a scale, mean or std that is stated and asks for more than the levels 0-255 themselves."""
    for key, neutral in (("scale", 1), ("mean", (0, 0, 0)), ("std", (1, 1, 1))):
        if key in sidecar.model_fields_set and getattr(sidecar, key) != neutral:
            raise ConfigError(f"{where}: {key}: the network takes uint8, 0-255 as they are; leave it out")


def _finish(add: Wiring, model: ModelProto, sidecar: SideCar, *, size: tuple[int, int], where: str) -> tuple[str, ...]:
    """From what the network gives to `scores` and `labels`; the names of those that there are."""
    given = {value.name.removeprefix(PREFIX): value for value in model.graph.output}
    if not sidecar.heads and len(given) > 1:
        outputs = ", ".join(f"{name} {said(dims(value))}" for name, value in given.items())
        raise ConfigError(
            f"{where}: heads: is required, of several outputs those that say a class for every pixel: {outputs}"
        )
    only = next(iter(given))
    if not sidecar.heads and given[only].type.tensor_type.elem_type in INTEGERS:
        add_labels(add, given[only], size=size, where=where)
        return ("labels",)
    heads = sidecar.heads or (Head(output=only, channels=sidecar.classes),)
    scores = add_scores(add, given, heads, sidecar, where=where)
    # the batch as it comes, the size as the input has it
    batch = add("Slice", add("Shape", scores), *(add.constant([i], np.int64) for i in (0, 2, 0)))
    shape = add("Concat", batch, add.constant(size, np.int64), axis=0)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    absent = "" if opset >= 13 else add.constant([])  # opsets 11 and 12 want the unused inputs, empty
    full = add("Resize", scores, absent, absent, shape, mode="linear", coordinate_transformation_mode="half_pixel")
    add("Cast", add("ArgMax", full, axis=1, keepdims=0), to=TensorProto.UINT8, out="labels")
    return ("scores", "labels")
