"""Add operators to an ONNX graph: one set of class scores from the outputs of a network, labels, and a bias.

Usually there is one output. With several (TwinLiteNet: drivable area, lanes) a later head lies over those before it:
where its channel c beats its channel `null`, the class of c gets the highest score, by the same margin; elsewhere it is
below the others by that margin. So the arg-max lets a later head win, and the scores keep its confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.onnx_file import FLOATS, format_shape, shape_of, type_name
from stream_seg.network.sidecar import Head, SideCar
from stream_seg.types import VOID


class OnnxBuilder:
    """Operators and constants to add to a graph. A call adds an operator and returns the name of its output."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._prefix = prefix

    def __call__(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or self._make_name(operator)
        name = self._make_name(operator)
        self.nodes.append(helper.make_node(operator, list(inputs), [out], name=name, **attributes))
        return out

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant and return its name."""
        name = self._make_name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def _make_name(self, kind: str) -> str:
        return f"{self._prefix}/{len(self.nodes) + len(self.constants)}/{kind}"


def bias_onnx(serialized: bytes, bias: Sequence[float], *, name: str) -> bytes:
    """Return a portable ONNX with a bias for each class added to its scores. Raises NetworkError if it has none."""
    model = onnx.load_from_string(serialized)
    nodes = model.graph.node
    index = next((index for index, node in enumerate(nodes) if "scores" in node.output), None)
    if index is None:
        raise NetworkError(f"{name}: prefer: the network outputs labels, no scores that a number could be added to")
    unbiased = f"scores/{len(nodes)}"  # unique, since a network may be biased twice
    outputs = nodes[index].output
    outputs[list(outputs).index("scores")] = unbiased
    add = OnnxBuilder(unbiased)
    add("Add", unbiased, add.constant(np.reshape(bias, (1, -1, 1, 1))), out="scores")
    nodes.insert(index + 1, add.nodes[0])
    model.graph.initializer.extend(add.constants)
    return bytes(model.SerializeToString())


def add_scores(
    add: OnnxBuilder, outputs: Mapping[str, ValueInfoProto], heads: Sequence[Head], sidecar: SideCar, *, where: str
) -> str:
    """Add `scores` float32 (N, classes, h, w) for the outputs of the network. Return its name."""
    scores: dict[str, str] = {}
    for head in heads:
        if head.output not in outputs:
            raise ConfigError(f"{where}: heads: unknown output {head.output!r}; known: {', '.join(outputs)}")
        value = outputs[head.output]
        channels = _check_channels(value, head, layout=sidecar.layout, where=where)
        x = add("Cast", value.name, to=TensorProto.FLOAT)
        if sidecar.layout == "nhwc":
            x = add("Transpose", x, perm=[0, 3, 1, 2])
        if head.channels == sidecar.classes and len(heads) == 1 and channels != 1:
            return add("Identity", x, out="scores")
        if channels == 1:
            above = add("Sub", x, add.constant(head.threshold))
            planes = dict(zip(head.channels, (add("Neg", above), above), strict=True))
        else:
            indices = {name: add.constant([i], np.int64) for i, name in enumerate(head.channels)}
            planes = {name: add("Gather", x, index, axis=1) for name, index in indices.items()}
        _add_head(add, scores, planes, where=where)
    extra, missing = sorted(set(scores) - set(sidecar.classes)), sorted(set(sidecar.classes) - set(scores))
    if extra or missing:
        fault = f"{', '.join(extra)}: not in classes" if extra else f"no channel for {', '.join(missing)}"
        raise ConfigError(f"{where}: heads: {fault}; classes are {', '.join(sidecar.classes)}")
    return add("Concat", *(scores[name] for name in sidecar.classes), axis=1, out="scores")


def add_labels(add: OnnxBuilder, value: ValueInfoProto, *, size: tuple[int, int], where: str) -> None:
    """Add `labels` uint8 (N, H, W) for an output that is a label map, integers (N, H, W) or (N, 1, H, W).

    In wider integers, values below 0 become void (255), as 255 itself, and values above 255, which are no class, 254.
    """
    shape = shape_of(value)
    plain = shape if len(shape) == 3 else shape[:1] + shape[2:] if len(shape) == 4 and shape[1] == 1 else []
    if len(plain) != 3 or any(side not in (None, expected) for side, expected in zip(plain[1:], size, strict=True)):
        expected = f"(N, {size[0]}, {size[1]}) or scores"
        raise NetworkError(f"{where}: labels of shape {format_shape(shape)}; expected {expected}")
    labels = value.name if len(shape) == 3 else add("Gather", value.name, add.constant(0, np.int64), axis=1)
    kind = value.type.tensor_type.elem_type
    if kind != TensorProto.UINT8:
        dtype = np.int64 if kind == TensorProto.INT64 else np.int32
        labels = labels if dtype is np.int64 else add("Cast", labels, to=TensorProto.INT32)
        for comparison, bound, replacement in (("Less", 0, VOID), ("Greater", VOID, VOID - 1)):
            outside = add(comparison, labels, add.constant(bound, dtype))
            labels = add("Where", outside, add.constant(replacement, dtype), labels)
    add("Cast", labels, to=TensorProto.UINT8, out="labels")


def _check_channels(value: ValueInfoProto, head: Head, *, layout: str, where: str) -> int | None:
    """Return the number of channels of an output, None if its ONNX leaves it open. Raises where a head does not fit."""
    shape, kind = shape_of(value), value.type.tensor_type.elem_type
    if len(shape) != 4 or kind not in FLOATS:
        actual = f"output {head.output} is {type_name(value)} {format_shape(shape)}"
        raise NetworkError(f"{where}: {actual}; expected float scores with 4 axes, one channel per class")
    channels = shape[1 if layout == "nchw" else 3]
    if channels is not None and len(head.channels) != max(channels, 2):
        rule = "two names, below and above the threshold" if channels == 1 else "one name each"
        actual = f"{len(head.channels)} classes for the {channels} channels of output {head.output}"
        raise ConfigError(f"{where}: {actual}; {rule}")
    if channels != 1 and "threshold" in head.model_fields_set:
        count = "an unknown number of channels" if channels is None else f"{channels} channels"
        raise ConfigError(f"{where}: heads: threshold: output {head.output} has {count}, not one; remove it")
    return channels


def _add_head(add: OnnxBuilder, scores: dict[str, str], planes: Mapping[str | None, str], *, where: str) -> None:
    """Lay the classes of a head over the `scores` so far, in place."""
    if (None in planes) != bool(scores):
        rule = "one channel null: where it wins, the heads before decide" if scores else "a class for every channel"
        raise ConfigError(f"{where}: heads: {'a later' if scores else 'the first'} head needs {rule}")
    top = "" if not scores else add("Max", *scores.values()) if len(scores) > 1 else next(iter(scores.values()))
    for name, plane in planes.items():
        if name is None:
            continue
        score = add("Add", top, add("Sub", plane, planes[None])) if top else plane
        scores[name] = add("Max", scores[name], score) if name in scores else score
