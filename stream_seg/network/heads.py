"""From the outputs of a network to one set of class scores, inside its graph.

One output is the common case. With several (TwinLiteNet: drivable area, lanes) a later head lies over those before it:
where its channel c beats its channel `null`, the class of c becomes the likeliest of all, by as much; elsewhere it is
below them by as much. So the arg-max is what "a later head wins" says, and the scores still say how surely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto, ValueInfoProto

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.onnx_builder import Wiring
from stream_seg.network.onnx_file import FLOATS, dims, kind_of, said
from stream_seg.network.sidecar import Head, SideCar
from stream_seg.types import VOID


def add_scores(
    add: Wiring, given: Mapping[str, ValueInfoProto], heads: Sequence[Head], sidecar: SideCar, *, where: str
) -> str:
    """Add `scores` float32 (N, classes, h, w) for the outputs `given`, and return its name."""
    scores: dict[str, str] = {}
    for head in heads:
        if head.output not in given:
            raise ConfigError(f"{where}: heads: unknown output {head.output!r}; known: {', '.join(given)}")
        value = given[head.output]
        channels = _channels(value, head, layout=sidecar.layout, where=where)
        x = add("Cast", value.name, to=TensorProto.FLOAT)
        if sidecar.layout == "nhwc":
            x = add("Transpose", x, perm=[0, 3, 1, 2])
        if head.channels == sidecar.classes and len(heads) == 1 and channels != 1:
            return add("Identity", x, out="scores")
        _lay_over(add, scores, _planes(add, x, head, channels=channels), where=where)
    foreign, silent = set(scores) - set(sidecar.classes), set(sidecar.classes) - set(scores)
    if foreign or silent:
        fault = f"{_list(foreign)}: not in classes" if foreign else f"no channel says {_list(silent)}"
        raise ConfigError(f"{where}: heads: {fault}; classes are {', '.join(sidecar.classes)}")
    return add("Concat", *(scores[name] for name in sidecar.classes), axis=1, out="scores")


def add_labels(add: Wiring, value: ValueInfoProto, *, size: tuple[int, int], where: str) -> None:
    """Add `labels` uint8 (N, H, W) for an output that is a label map, integers (N, H, W) or (N, 1, H, W).

    Of wider integers those below 0 are void, as 255 is, and those above 255, which no class is, become 254.
    """
    shape = dims(value)
    plain = shape if len(shape) == 3 else shape[:1] + shape[2:] if len(shape) == 4 and shape[1] == 1 else []
    if len(plain) != 3 or any(got not in (None, expected) for got, expected in zip(plain[1:], size, strict=True)):
        raise NetworkError(f"{where}: labels of shape {said(shape)}; expected (N, {size[0]}, {size[1]}) or scores")
    labels = value.name if len(shape) == 3 else add("Gather", value.name, add.constant(0, np.int64), axis=1)
    kind = value.type.tensor_type.elem_type
    if kind != TensorProto.UINT8:
        whole = np.int64 if kind == TensorProto.INT64 else np.int32
        labels = labels if whole is np.int64 else add("Cast", labels, to=TensorProto.INT32)
        for beyond, bound, instead in (("Less", 0, VOID), ("Greater", VOID, VOID - 1)):
            foreign = add(beyond, labels, add.constant(bound, whole))
            labels = add("Where", foreign, add.constant(instead, whole), labels)
    add("Cast", labels, to=TensorProto.UINT8, out="labels")


def _channels(value: ValueInfoProto, head: Head, *, layout: str, where: str) -> int | None:
    """How many channels an output has, None where its ONNX does not say. Refuses what the head's names do not fit."""
    shape, kind = dims(value), value.type.tensor_type.elem_type
    if len(shape) != 4 or kind not in FLOATS:
        got = f"{kind_of(value)} {said(shape)}"
        raise NetworkError(
            f"{where}: output {head.output} is {got}; float scores of 4 axes are expected, one plane a class"
        )
    channels = shape[1 if layout == "nchw" else 3]
    if channels is not None and len(head.channels) != max(channels, 2):
        each = "two names, below and above the threshold" if channels == 1 else "one name each"
        raise ConfigError(
            f"{where}: {len(head.channels)} classes for the {channels} channels of output {head.output}; {each}"
        )
    if channels != 1 and "threshold" in head.model_fields_set:
        has = "it does not say how many" if channels is None else f"it has {channels}"
        raise ConfigError(
            f"{where}: heads: threshold: output {head.output} needs a single channel for it, {has}; leave it out"
        )
    return channels


def _planes(add: Wiring, x: str, head: Head, *, channels: int | None) -> dict[str | None, str]:
    """Each class of a head, and its scores (N, 1, h, w)."""
    if channels == 1:
        above = add("Sub", x, add.constant(head.threshold))
        return dict(zip(head.channels, (add("Neg", above), above), strict=True))
    return {name: add("Gather", x, add.constant([i], np.int64), axis=1) for i, name in enumerate(head.channels)}


def _lay_over(add: Wiring, scores: dict[str, str], planes: Mapping[str | None, str], *, where: str) -> None:
    """Put a head's classes over the `scores` so far, in place."""
    if (None in planes) != bool(scores):
        need = "one channel null: where it wins, the heads before decide" if scores else "a class for every channel"
        raise ConfigError(f"{where}: heads: {'a later' if scores else 'the first'} head needs {need}")
    top = "" if not scores else add("Max", *scores.values()) if len(scores) > 1 else next(iter(scores.values()))
    for name, plane in planes.items():
        if name is None:
            continue
        over = add("Add", top, add("Sub", plane, planes[None])) if top else plane
        scores[name] = add("Max", scores[name], over) if name in scores else over


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
