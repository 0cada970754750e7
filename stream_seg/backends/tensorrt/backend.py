"""TensorRT: the engine for an NVIDIA GPU, with the package `tensorrt` or `tensorrt_rtx`, whichever is here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result, as_result, cheapest, in_batches
from stream_seg.backends.tensorrt.api import MODULES, module
from stream_seg.backends.tensorrt.build import build
from stream_seg.backends.tensorrt.cuda import Plan, gpu
from stream_seg.backends.tensorrt.precision import PRECISIONS
from stream_seg.backends.tensorrt.run import Execution
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

BATCH = 8
"""Pictures that a plan built here takes at a time; more are computed in turns."""


def lack() -> str | None:
    """What keeps this backend from working here, None where nothing does."""
    if not any(find_spec(name) for name in MODULES) or not find_spec("cuda"):
        return "is not installed: pip install '.[tensorrt]' or '.[tensorrt-rtx]'"
    try:
        gpu()
    except (NetworkError, ImportError) as error:
        return f"cannot work here: {str(error).removeprefix('tensorrt: ')}"
    return None


def open_engine(
    network: Network,
    *,
    precision: str,
    threads: int,
    output: str | None = None,
    plan: bytes | None = None,
    runtime_cache: Path | None = None,
) -> Engine:
    """Run `plan`, or build one first, on this machine's GPU. Raises NetworkError; ImportError.

    `threads` means nothing here. `output` is "scores" or "labels"; None takes scores where there are any, though labels
    are a tenth of their size. A plan of an earlier build must be of `network` in `precision`, and give that output.
    """
    device, _ = gpu()
    precision = settled(precision, quantised=network.int8 is not None)
    name, graph = cheapest(graph_of(network, precision), output)
    if plan is None:
        plan = build(graph, precision=precision, size=network.size, batch=(1, BATCH), name=network.name)
    execution = open_execution(plan, output=name, runtime_cache=runtime_cache, name=network.name)

    def run(images: Images) -> Result:
        return as_result(name, in_batches(lambda part: execution.infer(part)[name], images, most=execution.batch))

    info = EngineInfo(network.name, "tensorrt", precision, device)
    spec = EngineSpec(network.size, network.classes, info, shapes=execution.shapes, batch=execution.batch)
    return Engine(spec, run, errors=(RuntimeError,))


def open_execution(plan: bytes, *, output: str, name: str, runtime_cache: Path | None = None) -> Execution:
    """A plan on this machine's GPU, for outputs that are to stay there. Raises NetworkError; ImportError."""
    from cuda.bindings import runtime

    try:
        return Execution(Plan(plan, runtime_cache=runtime_cache), runtime, outputs=(output,))
    except RuntimeError as error:
        raise NetworkError(f"{name}: {module().__name__} cannot run it: {error}") from error


def graph_of(network: Network, precision: str) -> bytes:
    """The interchange ONNX that a plan of this precision begins with: the quantised form for int8 and fp8."""
    return network.int8 if precision in ("int8", "fp8") and network.int8 else network.f32


def settled(precision: str, *, quantised: bool) -> str:
    """The precision that is meant by `precision`. Raises NetworkError for one that is not to be had."""
    possible = [p for p in ("int8", "fp16", "f32", "fp8") if quantised or p not in ("int8", "fp8")]
    if precision == "auto":
        return possible[0]
    if precision not in possible:
        why = "the network has no int8 form" if precision in PRECISIONS else "not of TensorRT here"
        raise NetworkError(f"tensorrt: precision {precision}: {why}; here: {', '.join(possible)}")
    return precision
