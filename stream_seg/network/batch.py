"""Networks that were exported for a fixed number of images at a time: reduced to one image where that is exact."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from onnx import ModelProto, ValueInfoProto
from onnx.shape_inference import InferenceError, infer_shapes

from stream_seg.network.onnx_file import list_inputs, shape_of

LOG = logging.getLogger(__name__)


def reduce_batch(model: ModelProto, *, path: Path) -> ModelProto:
    """Return a network with a fixed batch for one image, or unchanged where its operators depend on the batch.

    `model` has inferred shapes. Backends fill an unchanged batch with copies of the image.
    """
    count = shape_of(list_inputs(model)[0])[0]
    if count is None or count == 1:
        return model
    single = ModelProto()
    single.CopyFrom(model)
    for value in (*list_inputs(single), *single.graph.output):
        _open_batch(value)
    list_inputs(single)[0].type.tensor_type.shape.dim[0].dim_value = 1
    del single.graph.value_info[:]
    with suppress(InferenceError):
        single = infer_shapes(single, strict_mode=True, data_prop=True)
        if _are_shapes_of_one(single, model, count):
            return single
    cost = f"every frame is computed {count} times; export it with a batch of 1"
    LOG.warning("%s: takes %d images at a time and cannot be reduced to one: %s", path, count, cost)
    return model


def _open_batch(value: ValueInfoProto) -> None:
    if value.type.tensor_type.shape.dim:
        value.type.tensor_type.shape.dim[0].Clear()


def _are_shapes_of_one(single: ModelProto, model: ModelProto, count: int) -> bool:
    """Return True if every tensor that depends on the image has its first axis divided by `count`, and no other change.

    Vectors and single numbers are excepted, such as shapes that are computed from a tensor.
    """
    dependent = {list_inputs(model)[0].name}
    for node in model.graph.node:  # in topological order
        if not dependent.isdisjoint(node.input):
            dependent.update(node.output)
    before, after = ({v.name: v for v in (*m.graph.value_info, *m.graph.output)} for m in (model, single))
    for name in dependent.intersection(output for node in model.graph.node for output in node.output):
        if name not in before or name not in after:
            return False
        old, new = shape_of(before[name]), shape_of(after[name])
        if len(old) > 1 and (None in new or [(new[0] or 0) * count, *new[1:]] != old):
            return False
    return True
