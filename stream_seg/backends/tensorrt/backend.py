"""TensorRT: the fastest backend on an NVIDIA GPU, with the package `tensorrt` or `tensorrt_rtx`."""

from __future__ import annotations

from stream_seg.backends.device import ANY_GPU, QUANTIZED, Device
from stream_seg.backends.engine import Engine, EngineSpec, make_run, prune_to_output
from stream_seg.backends.tensorrt.api import OnStep, import_tensorrt
from stream_seg.backends.tensorrt.build import build_plan
from stream_seg.backends.tensorrt.cuda import Plan, find_gpu
from stream_seg.backends.tensorrt.precision import convert_precision
from stream_seg.backends.tensorrt.run import Execution
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

BATCH = 8
"""Largest batch of a plan that `create_engine` builds; more images are computed in several runs."""
FP8_SINCE = (8, 9)
"""First compute capability with fp8."""


def find_obstacle() -> str | None:
    """Return the reason why TensorRT cannot work although it is installed, None if it can."""
    try:
        find_gpu()
    except (NetworkError, ImportError) as error:
        return str(error).removeprefix("tensorrt: ")
    return None


def find_device() -> Device:
    """Return the GPU of this machine. Raises NetworkError where there is none; ImportError."""
    import_tensorrt()
    return _make_device(*find_gpu())


def find_foreign_device(compute_capability: str) -> Device:
    """Return a device that stands for every GPU of a compute capability ("8.9"). Raises ImportError."""
    import_tensorrt()
    return _make_device(ANY_GPU, compute_capability)


def create_engine(
    network: Network, *, precision: str, threads: int = 1, output: str | None = None, plan: bytes | None = None
) -> Engine:
    """Load `plan`, or build one first, on this machine's GPU. Raises NetworkError; ImportError.

    `output` is "scores" or "labels", by default scores if there are any, although labels are a tenth of their size. A
    plan must have been built from `network` in `precision` with that output. `threads` has no effect.
    """
    device, _ = find_gpu()
    name, graph = prune_to_output(select_onnx(network, precision), output)
    if plan is None:
        plan = build_plan(graph, precision=precision, size=network.size, batch=(1, BATCH), name=network.name)
    execution = load_plan(plan, output=name, name=network.name)
    run = make_run(name, lambda images: execution.infer(images)[name], batch=execution.batch)
    info = EngineInfo(network.name, "tensorrt", precision, device)
    spec = EngineSpec(network.size, network.classes, info, shapes=execution.shapes, batch=execution.batch)
    return Engine(spec, run, errors=(RuntimeError,))


def compile_network(
    network: Network, precision: str, *, batch: int, compute_capability: str | None, on_step: OnStep | None = None
) -> bytes:
    """Return a plan for up to `batch` images, for this machine's GPU or a `compute_capability`. Raises NetworkError."""
    return build_plan(
        prune_to_output(select_onnx(network, precision))[1],
        precision=precision,
        size=network.size,
        batch=(1, batch),
        compute_capability=compute_capability,
        on_step=on_step,
        name=network.name,
    )


def lower_network(network: Network, precision: str) -> bytes:
    """Return the ONNX that a plan of `precision` is compiled from, in its number types. Raises NetworkError."""
    return convert_precision(select_onnx(network, precision), precision=precision, name=network.name)


def load_plan(plan: bytes, *, output: str, name: str) -> Execution:
    """Load a plan of the network `name` on this machine's GPU. Raises NetworkError; ImportError."""
    from cuda.bindings import runtime

    try:
        return Execution(Plan(plan), runtime, outputs=(output,))
    except RuntimeError as error:
        raise NetworkError(f"{name}: {import_tensorrt().__name__} cannot run it: {error}") from error


def select_onnx(network: Network, precision: str) -> bytes:
    """Return the form of `network` that a plan of `precision` starts from: the quantized one for int8 and fp8."""
    return network.int8 if precision in QUANTIZED and network.int8 else network.f32


def _make_device(name: str, compute_capability: str) -> Device:
    fp8 = tuple(map(int, compute_capability.split("."))) >= FP8_SINCE
    return Device(name, ("int8", "fp16", "f32"), ("fp8",) if fp8 else (), compute_capability)
