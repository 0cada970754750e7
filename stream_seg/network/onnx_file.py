"""Read and validate a user's ONNX file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
import onnx.checker
import onnx.defs
import onnx.inliner
from google.protobuf.message import DecodeError, EncodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.external_data_helper import uses_external_data

from stream_seg.errors import NetworkError
from stream_seg.network.onnx_builder import opset_of

OLDEST_OPSET = 11
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
INTEGERS = (
    TensorProto.BOOL, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
)  # fmt: skip


def read_onnx(path: Path) -> ModelProto:
    """Return the model of an ONNX file with its external data, validated. Raises NetworkError."""
    if not path.is_file():
        raise NetworkError(f"{path}: no such file")
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise NetworkError(f"{path}: not an ONNX file") from error
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())
        raise NetworkError(f"{path}: its external data must be files in its own folder: {reason}") from error
    except OSError as error:
        raise NetworkError(f"{path}: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{path}: not an ONNX file: {' '.join(str(error).split())}") from error
    if model.functions:  # torch and TensorRT have none
        model = _inline_functions(model, path=path)
    if (fault := next(_find_faults(model), None)) is not None:
        raise NetworkError(f"{path}: {fault}")
    _sort(model, path=path)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:
                dim.Clear()  # 0 and -1 stand for an open axis in other formats
    return model


def _inline_functions(model: ModelProto, *, path: Path) -> ModelProto:
    """Return a model with its own functions replaced by their operators. Raises NetworkError for an invalid one."""
    try:
        inlined: ModelProto = onnx.inliner.inline_local_functions(model)
    except (RuntimeError, TypeError, ValueError, DecodeError, EncodeError) as error:
        raise NetworkError(f"{path}: invalid functions: {' '.join(str(error).split())}") from error
    domains = {function.domain for function in model.functions}
    imports = [opset for opset in inlined.opset_import if opset.domain not in domains or not opset.domain]
    del inlined.opset_import[:]
    inlined.opset_import.extend(imports)
    return inlined


def has_external_data(serialized: bytes) -> bool:
    """Return True if an ONNX has tensors in other files."""
    try:
        return any(uses_external_data(tensor) for tensor in _tensors(onnx.load_from_string(serialized)))
    except DecodeError:
        return False  # not an ONNX, which the backend reports


def _tensors(message: Message) -> Iterator[TensorProto]:
    for field, value in message.ListFields():
        for part in [value] if field.type != field.TYPE_MESSAGE or isinstance(value, Message) else value:
            if isinstance(part, TensorProto):
                yield part
            elif isinstance(part, Message):
                yield from _tensors(part)


def _has_text_names(message: Message) -> bool:
    """Return True if every name is text. Protobuf returns others as bytes, on which all code that reads names fails."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, (str, bytes, Message)) else value
        if field.type == field.TYPE_MESSAGE and not all(_has_text_names(part) for part in values):
            return False
        if field.type == field.TYPE_STRING and field.name != "doc_string" and not all(type(x) is str for x in values):
            return False
    return True


def _find_faults(model: ModelProto) -> Iterator[str]:
    """Yield the reasons to refuse a model; a later check relies on the earlier ones.

    A backend may crash on an operator that violates ONNX, which nothing can catch. Graphs that break other rules of
    ONNX's checker are common, and run.
    """
    if not _has_text_names(model):
        yield "not an ONNX file: it has a name that is not UTF-8 text"
    graph, opset = model.graph, opset_of(model)
    if not (graph.node and graph.output and opset):
        yield "not an ONNX network: it has no operators or no outputs"
    unknown = {
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in graph.node
        if node.domain != "com.microsoft"  # ONNX Runtime's extensions
        and not onnx.defs.has(node.op_type, node.domain)
    }
    if unknown:
        yield f"unknown operators: {', '.join(sorted(unknown))}; export it in standard ONNX operators"
    if opset < OLDEST_OPSET:
        yield f"ONNX opset {opset}; export it again with opset {OLDEST_OPSET} or newer"
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = model.ir_version, {"": opset, "ai.onnx": opset}
    try:
        model.ByteSize()
        for node in graph.node:
            if node.domain not in context.opset_imports:
                continue
            if not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                onnx.checker.check_node(node, context)
            for text in (text for attribute in node.attribute for text in (attribute.s, *attribute.strings)):
                text.decode()  # Python fails on an error message of a backend that repeats other bytes
    except EncodeError:
        yield "too large with its weights; the limit is 2 GB"
    except (onnx.checker.ValidationError, ValueError) as error:
        yield f"not a valid ONNX network: {' '.join(str(error).split())}"
    outputs = Counter(name for node in graph.node for name in node.output if name)
    duplicates = [name for name, count in outputs.items() if count > 1]
    if duplicates:
        yield f"not a valid ONNX network: several operators write {', '.join(duplicates)}"
    known = {*outputs, *(value.name for value in (*graph.input, *graph.initializer))}
    missing = dict.fromkeys([*(name for node in graph.node for name in node.input), *(o.name for o in graph.output)])
    if unwritten := [name for name in missing if name and name not in known]:
        yield f"not a valid ONNX network: nothing writes {', '.join(unwritten)}"
    if graph.sparse_initializer:
        yield "has sparse constants; export it with dense ones"


def _sort(model: ModelProto, *, path: Path) -> None:
    """Sort operators topologically, as ONNX requires; some exporters do not. Raises NetworkError for a cycle."""
    nodes = model.graph.node
    writers = {name: index for index, node in enumerate(nodes) for name in node.output}
    needs = [{writers[name] for name in _names_read_by(node) if name in writers} for node in nodes]
    if all(need < index for index, indices in enumerate(needs) for need in indices):
        return
    try:
        order = list(TopologicalSorter(dict(enumerate(needs))).static_order())
    except CycleError as error:
        raise NetworkError(f"{path}: not a valid ONNX network: its operators form a cycle") from error
    in_order = [onnx.NodeProto.FromString(nodes[index].SerializeToString()) for index in order]
    del nodes[:]
    nodes.extend(in_order)


def _names_read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that an operator reads, also from within its subgraphs."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _names_read_by(inner)


def list_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Return the inputs of a network without its weights, which old files list among them."""
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def shape_of(value: ValueInfoProto) -> list[int | None]:
    """Return a shape; None is an open axis. An unknown shape is empty, as that of a single number."""
    return [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]


def type_name(value: ValueInfoProto) -> str:
    """Return the name of an element type, such as "float"."""
    kind = value.type.tensor_type.elem_type
    known = kind in TensorProto.DataType.values()
    return f"{TensorProto.DataType.Name(kind).lower()}" if known else f"of an unknown type ({kind})"


def format_shape(shape: Sequence[int | None]) -> str:
    """Return a shape as text, open axes as "?"."""
    if not shape:
        return "of an unknown shape"
    return f"({', '.join(str(dim or '?') for dim in shape)})"
