"""Distinguish label maps from class scores among the outputs of an ONNX, and convert them to uint8."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from stream_seg.errors import NetworkError
from stream_seg.network.onnx_builder import OnnxBuilder
from stream_seg.network.onnx_file import INTEGERS, format_shape, shape_of
from stream_seg.network.planes import Shape, add_plane, find_plane
from stream_seg.types import VOID

MOVES_LABELS = frozenset({
    "Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Expand", "Round",
    "Floor", "Resize", "Upsample",
})  # fmt: skip
"""Operators behind an arg-max whose output still is a label map."""
WIDE = (TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64)


def is_label_map(model: ModelProto, value: ValueInfoProto, *, classes: int, batch: int | None, where: str) -> bool:
    """Return True if an output is a label map: one channel of integers, of an arg-max, or for more than two classes.

    Raises NetworkError for labels that are interpolated, since between classes 0 and 2 lies another one, and for an
    arg-max over another axis than the channels.
    """
    moves, origin = _trace(model, value.name)
    is_arg_max = origin is not None and origin.op_type in ("ArgMax", "ArgMin")
    if find_plane(shape_of(value)) is None:
        if is_arg_max:
            fault = f"output {format_shape(shape_of(value))} is an arg-max over another axis than the channels"
            raise NetworkError(f"{where}: {fault}; expected one channel of labels")
        return False
    if is_arg_max and (operator := next((node for node in moves if _interpolates(node)), None)) is not None:
        place = f"{operator.op_type} {operator.name.partition('/')[2]}".strip()
        fault = f"its labels are interpolated by {place}"
        raise NetworkError(f"{where}: {fault}; resize scores, or labels in mode nearest")
    if is_arg_max or is_without_batch(shape_of(value), classes=classes, batch=batch):
        return is_arg_max
    return value.type.tensor_type.elem_type in INTEGERS or classes > 2


def is_without_batch(shape: Shape, *, classes: int, batch: int | None) -> bool:
    """Return True for the shape of scores without an axis for the batch: (classes, H, W) or (H, W, classes)."""
    return len(shape) == 3 and shape[0] not in (None, 1, batch) and classes in (shape[0], shape[2])


def add_labels(add: OnnxBuilder, value: ValueInfoProto) -> tuple[int | None, int | None, int | None]:
    """Add `labels` uint8 (N, h, w) for a label map. Return its shape.

    Values below 0, above 255 and NaN become void (255). Fractions are rounded.
    """
    shape, kind = shape_of(value), value.type.tensor_type.elem_type
    labels = add_plane(add, value.name, shape)
    if kind not in (TensorProto.UINT8, TensorProto.BOOL):
        # int32 and float32 hold every value of the narrower types; a uint64 beyond int64 becomes negative
        wide = TensorProto.INT64 if kind in WIDE else TensorProto.INT32 if kind in INTEGERS else TensorProto.FLOAT
        dtype = helper.tensor_dtype_to_np_dtype(wide)
        labels = labels if kind == wide else add("Cast", labels, to=wide)
        if wide == TensorProto.FLOAT:
            labels = add("Floor", add("Add", labels, add.constant(0.5)))
        void = add.constant(VOID, dtype)
        for comparison, bound in (("Greater", -1), ("Less", VOID)):  # both are false for NaN
            labels = add("Where", add(comparison, labels, add.constant(bound, dtype)), labels, void)
    add("Cast", labels, to=TensorProto.UINT8, out="labels")
    plane = find_plane(shape)
    assert plane is not None  # see is_label_map
    return plane


def _trace(model: ModelProto, name: str) -> tuple[list[NodeProto], NodeProto | None]:
    """Return the operators before `name` that only move labels about, the last one first, and the one before them."""
    producers = {output: node for node in model.graph.node for output in node.output}
    moves: list[NodeProto] = []
    node = producers.get(name)
    while node is not None and node.op_type in MOVES_LABELS:
        moves.append(node)
        node = producers.get(node.input[0])
    return moves, node


def _interpolates(node: NodeProto) -> bool:
    modes = (helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == "mode")
    return node.op_type in ("Resize", "Upsample") and next(modes, b"nearest") != b"nearest"
