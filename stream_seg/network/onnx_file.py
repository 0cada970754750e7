"""Reading a user's ONNX file, and giving its input one size. What does not fit is refused here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
import onnx.checker
import onnx.defs
import onnx.shape_inference
from google.protobuf.message import DecodeError, EncodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.external_data_helper import uses_external_data

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.sidecar import SideCar

OLDEST_OPSET = 11
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
INTEGERS = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64)


def read(path: Path) -> ModelProto:
    """An ONNX file, its external data with it. Raises NetworkError."""
    if not path.is_file():
        raise NetworkError(f"{path}: no such file")
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise NetworkError(f"{path}: not an ONNX file") from error
    except onnx.checker.ValidationError as error:
        raise NetworkError(
            f"{path}: its external data must be files in its own folder: {' '.join(str(error).split())}"
        ) from error
    except OSError as error:
        raise NetworkError(f"{path}: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{path}: not an ONNX file: {' '.join(str(error).split())}") from error
    if not _legible(model):
        raise NetworkError(f"{path}: not an ONNX file: a name in it is no text (UTF-8)")
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if not (model.graph.node and model.graph.output and opset):
        raise NetworkError(f"{path}: not an ONNX network: no operators or no outputs in it")
    _refuse_unknown(model, path=path)
    if opset < OLDEST_OPSET:
        raise NetworkError(f"{path}: ONNX opset {opset}; {OLDEST_OPSET} or newer is needed, export it again")
    _refuse_invalid(model, opset=opset, path=path)
    _sort(model, path=path)
    return model


def has_external_data(serialised: bytes) -> bool:
    """Whether an ONNX has tensors in other files."""
    try:
        return any(uses_external_data(tensor) for tensor in _tensors(onnx.load_from_string(serialised)))
    except DecodeError:
        return False  # it is none, as an engine will say


def _tensors(message: Message) -> Iterator[TensorProto]:
    for field, value in message.ListFields():
        for part in [value] if field.type != field.TYPE_MESSAGE or isinstance(value, Message) else value:
            if isinstance(part, TensorProto):
                yield part
            elif isinstance(part, Message):
                yield from _tensors(part)


def _legible(message: Message) -> bool:
    """Whether every name in it is text. Protobuf gives others as bytes, on which all that read names fail."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, (str, bytes, Message)) else value
        if field.type == field.TYPE_MESSAGE and not all(_legible(part) for part in values):
            return False
        if field.type == field.TYPE_STRING and field.name != "doc_string" and not all(type(x) is str for x in values):
            return False
    return True


def _refuse_invalid(model: ModelProto, *, opset: int, path: Path) -> None:
    """Raise NetworkError for an operator that is not as ONNX has it: of that a backend may crash, which nothing can
    catch. Graphs that break other rules of ONNX's checker are common, and run."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = model.ir_version, {"": opset, "ai.onnx": opset}
    try:
        model.ByteSize()
        for node in model.graph.node:
            if node.domain not in context.opset_imports:
                continue
            if not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                onnx.checker.check_node(node, context)
            for text in (text for attribute in node.attribute for text in (attribute.s, *attribute.strings)):
                text.decode()  # which a backend's complaint repeats, and Python then fails on
    except EncodeError as error:
        raise NetworkError(f"{path}: too large with its weights; an ONNX in one piece has at most 2 GB") from error
    except (onnx.checker.ValidationError, ValueError) as error:
        raise NetworkError(f"{path}: not a valid ONNX network: {' '.join(str(error).split())}") from error
    written = Counter(name for node in model.graph.node for name in node.output if name)
    twice = [name for name, times in written.items() if times > 1]
    if twice:
        raise NetworkError(f"{path}: not a valid ONNX network: several operators write {', '.join(twice)}")
    if model.graph.sparse_initializer:
        raise NetworkError(f"{path}: has sparse constants; export it with dense ones")


def _sort(model: ModelProto, *, path: Path) -> None:
    """Put operators after those whose outputs they read, as ONNX asks for; backends do so by themselves."""
    nodes = model.graph.node
    writer = {name: place for place, node in enumerate(nodes) for name in node.output}
    needs = {place: {writer[name] for name in _read_by(node) if name in writer} for place, node in enumerate(nodes)}
    if all(need < place for place, needed in needs.items() for need in needed):
        return
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise NetworkError(f"{path}: not a valid ONNX network: its operators form a circle") from error
    in_order = [onnx.NodeProto.FromString(nodes[place].SerializeToString()) for place in order]
    del nodes[:]
    nodes.extend(in_order)


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The names that an operator reads, also from within the graphs that it holds."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)


def _refuse_unknown(model: ModelProto, *, path: Path) -> None:
    """Raise NetworkError naming operators that ONNX, ONNX Runtime's extensions and the file itself do not know."""
    own = {(function.domain, function.name) for function in model.functions}
    unknown = {
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in model.graph.node
        if (node.domain, node.op_type) not in own
        and node.domain != "com.microsoft"
        and not onnx.defs.has(node.op_type, node.domain)
    }
    if unknown:
        raise NetworkError(
            f"{path}: unknown operators: {', '.join(sorted(unknown))}; export it in standard ONNX operators"
        )


def inputs(model: ModelProto) -> list[ValueInfoProto]:
    """What a network takes; old files list their weights among it."""
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def dims(value: ValueInfoProto) -> list[int | None]:
    """A shape; None is an axis left open."""
    return [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]


def kind_of(value: ValueInfoProto) -> str:
    """The name of what an array holds, "float" for one."""
    kind = value.type.tensor_type.elem_type
    known = kind in TensorProto.DataType.values()
    return f"{TensorProto.DataType.Name(kind).lower()}" if known else f"of an unknown type ({kind})"


def said(shape: Sequence[int | None]) -> str:
    """A shape as a sentence says it."""
    return f"({', '.join(str(dim or '?') for dim in shape)})"


def sized(model: ModelProto, sidecar: SideCar, *, path: Path, where: str) -> tuple[int, int]:
    """Fix the size of the input in `model`, infer what follows from it, and return (height, width)."""
    source = _picture(model, path=path)
    shape = dims(source)
    order, axes = {"nchw": ("N, 3, H, W", (1, 2, 3)), "nhwc": ("N, H, W, 3", (3, 1, 2))}[sidecar.layout]
    channels, height, width = (shape[axis] for axis in axes)
    takes = f"input {source.name} of {path.name} is {said(shape)}"
    if channels not in (3, None):
        raise ConfigError(f"{where}: layout: {sidecar.layout} means ({order}); {takes}")
    if sidecar.size is None and not (height and width):
        raise ConfigError(f"{where}: size: is required, [height, width]; {takes}")
    size = sidecar.size or (height or 0, width or 0)
    if (height or size[0], width or size[1]) != size:
        raise ConfigError(f"{where}: size: {list(size)} is not to be had, leave it out; {takes}")
    for axis, value in zip(axes, (3, *size), strict=True):
        source.type.tensor_type.shape.dim[axis].dim_value = value
    del model.graph.value_info[:]  # what was said of another size
    try:
        model.CopyFrom(onnx.shape_inference.infer_shapes(model))
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        raise NetworkError(f"{path}: does not take a picture of {size[0]} x {size[1]}: {reason}") from error
    return size


def _picture(model: ModelProto, *, path: Path) -> ValueInfoProto:
    pictures = inputs(model)
    if len(pictures) != 1:
        names = ", ".join(value.name for value in pictures)
        raise NetworkError(f"{path}: {len(pictures)} inputs ({names}); one, a picture, is expected")
    kind = pictures[0].type.tensor_type.elem_type
    if len(dims(pictures[0])) != 4 or kind not in (*FLOATS, TensorProto.UINT8):
        got = f"{kind_of(pictures[0])} {said(dims(pictures[0]))}"
        raise NetworkError(
            f"{path}: input {pictures[0].name} is {got}; a picture is expected: float, 4 axes, one of them 3"
        )
    return pictures[0]
