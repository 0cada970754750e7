"""Class scores from the outputs of a network.

Usually there is one output. With several (TwinLiteNet: drivable area, lanes) a later head lies over those before it:
where its channel c beats its channel `null`, the class of c gets the highest score, by the same margin; elsewhere it is
below the others by that margin. So the arg-max lets a later head win, and the scores keep its confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.label_map import is_without_batch
from stream_seg.network.onnx_builder import OnnxBuilder
from stream_seg.network.onnx_file import FLOATS, INTEGERS, format_shape, shape_of, type_name
from stream_seg.network.planes import add_plane, find_plane
from stream_seg.network.sidecar import Head, SideCar
from stream_seg.network.value_range import ValueRanges, split_of


def add_scores(
    add: OnnxBuilder,
    model: ModelProto,
    outputs: Mapping[str, ValueInfoProto],
    heads: Sequence[Head],
    sidecar: SideCar,
    *,
    batch: int | None,
    where: str,
) -> None:
    """Add `scores` float32 (N, classes, h, w) for the outputs of the network."""
    scores: dict[str, str] = {}
    for head in heads:
        if head.output not in outputs:
            raise ConfigError(f"{where}: heads: unknown output {head.output!r}; known: {', '.join(outputs)}")
        value = outputs[head.output]
        x, channels = _add_channels(add, value, head, layout=sidecar.layout, batch=batch, where=where)
        if head.channels == sidecar.classes and len(heads) == 1 and channels != 1:
            add("Identity", x, out="scores")
            return
        if channels == 1:
            above = add("Sub", x, add.constant(_threshold(model, value, head, where=where)))
            planes = dict(zip(head.channels, (add("Neg", above), above), strict=True))
        else:
            indices = {name: add.constant([i], np.int64) for i, name in enumerate(head.channels)}
            planes = {name: add("Gather", x, index, axis=1) for name, index in indices.items()}
        _add_head(add, scores, planes, where=where)
    extra, missing = sorted(set(scores) - set(sidecar.classes)), sorted(set(sidecar.classes) - set(scores))
    if extra or missing:
        fault = f"{', '.join(extra)}: not in classes" if extra else f"no channel for {', '.join(missing)}"
        raise ConfigError(f"{where}: heads: {fault}; classes are {', '.join(sidecar.classes)}")
    add("Concat", *(scores[name] for name in sidecar.classes), axis=1, out="scores")


def _add_channels(
    add: OnnxBuilder, value: ValueInfoProto, head: Head, *, layout: str, batch: int | None, where: str
) -> tuple[str, int | None]:
    """Add the float32 (N, C, h, w) of an output. Return its name, and C, None if the ONNX leaves it open.

    Raises NetworkError for an output without one channel per class, ConfigError for a head that does not fit it.
    """
    shape, kind, names = shape_of(value), value.type.tensor_type.elem_type, len(head.channels)
    channel = 1 if layout == "nchw" else len(shape) - 1
    is_mask = find_plane(shape) is not None and not is_without_batch(shape, classes=names, batch=batch)
    if kind not in (*FLOATS, *INTEGERS) or not (is_mask or len(shape) in (3, 4)):
        actual = f"output {head.output} is {type_name(value)} {format_shape(shape)}"
        raise NetworkError(f"{where}: {actual}; expected scores with 4 axes, one channel per class")
    x = add("Cast", value.name, to=TensorProto.FLOAT)
    if is_mask:
        channels: int | None = 1
        x = add.insert_axis(add_plane(add, x, shape), 1)
    else:
        if len(shape) == 3:
            x, shape = add.insert_axis(x, 0), [1, *shape]
            channel = 1 if shape[1] == names else 3
        channels = shape[channel]
        x = add("Transpose", x, perm=[0, 3, 1, 2]) if channel == 3 else x
    if channels is not None and names != max(channels, 2):
        rule = "two names, below and above the threshold" if channels == 1 else "one name each"
        actual = f"{names} class{'es' * (names != 1)} for the {channels} channels of output {head.output}"
        raise ConfigError(f"{where}: {actual}; {rule}")
    if channels != 1 and head.threshold is not None:
        count = "an unknown number of channels" if channels is None else f"{channels} channels"
        raise ConfigError(f"{where}: heads: threshold: output {head.output} has {count}, not one; remove it")
    return x, channels


def _threshold(model: ModelProto, value: ValueInfoProto, head: Head, *, where: str) -> float:
    """Return the threshold of an output with one channel, by default from the range of its values.

    Raises ConfigError where that is not known, and for a threshold that no value can cross.
    """
    values = ValueRanges(model)[value.name]
    place = f"{where}: heads: threshold: output {head.output}"
    bounds = "" if values is None else f" has values from {values[0]:g} to {values[1]:g}"
    if values is not None and values[0] == values[1]:
        raise ConfigError(f"{place} is {values[0]:g} everywhere; export it without a Softmax over its one channel")
    if head.threshold is not None:
        low, high = values or (-math.inf, math.inf)
        if not low < head.threshold < high:
            raise ConfigError(f"{place}{bounds}; {head.threshold:g} would give every pixel the same class")
        return head.threshold
    split = split_of(values)
    if split is None:
        fault = bounds or " has values of an unknown range"
        example = f"{{output: {head.output}, channels: [{', '.join(map(str, head.channels))}], threshold: 0.5}}"
        raise ConfigError(f"{place}{fault}; say where its classes are split, for example heads: [{example}]")
    return split


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
