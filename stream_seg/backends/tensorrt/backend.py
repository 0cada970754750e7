"""TensorRT: the fastest backend on an NVIDIA GPU, with the package `tensorrt` or `tensorrt_rtx`.

`tensorrt_rtx` also builds for GPUs that this machine does not have, in a second, and compiles the kernels when the plan
first runs. `tensorrt` measures its kernels on the GPU of this machine and builds for that GPU only. A plan holds no
metadata; the engine cache keeps them beside it.
"""

from __future__ import annotations

from typing import Any

from stream_seg.backends.engine import ANY_GPU, Device, Engine, make_engine, prune_onnx, select_onnx, summarize_error
from stream_seg.backends.tensorrt.api import OnStep, Plan, create_monitor, find_gpu, get_logger, import_tensorrt
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


def find_device(compute_capability: str | None = None) -> Device:
    """Return the GPU of this machine, or any GPU of a compute capability ("8.9"). Raises NetworkError; ImportError."""
    import_tensorrt()
    name, capability = find_gpu() if compute_capability is None else (ANY_GPU, compute_capability)
    fp8 = tuple(map(int, capability.split("."))) >= FP8_SINCE
    return Device(name, ("int8", "fp16", "f32"), ("fp8",) if fp8 else (), capability, is_gpu=True)


def create_engine(
    network: Network, *, precision: str, threads: int = 1, requests: int = 1, plan: bytes | None = None
) -> Engine:
    """Load `plan`, or build one first, on this machine's GPU. Raises NetworkError; ImportError.

    A plan must have been built from `network` in `precision`. `threads` and `requests` have no effect.
    """
    device, _ = find_gpu()
    output, graph = prune_onnx(select_onnx(network, precision))
    if plan is None:
        plan = build_plan(graph, precision=precision, batch=BATCH, name=network.name)
    execution = load_plan(plan, output=output, name=network.name)
    info = EngineInfo(network.name, "tensorrt", precision, device)
    return make_engine(network, output, execution.infer, info=info, batch=execution.batch, least=execution.least)


def load_plan(plan: bytes, *, output: str, name: str) -> Execution:
    """Load a plan of the network `name` on this machine's GPU. Raises NetworkError; ImportError."""
    from cuda.bindings import runtime

    try:
        return Execution(Plan(plan), runtime, output=output)
    except RuntimeError as error:
        raise NetworkError(f"{name}: {import_tensorrt().__name__} cannot run it: {error}") from error


def lower_network(network: Network, precision: str) -> bytes:
    """Return the ONNX that a plan of `precision` is compiled from, in its number types. Raises NetworkError."""
    return convert_precision(select_onnx(network, precision), precision=precision, name=network.name)


def compile_network(network: Network, precision: str, **options: Any) -> bytes:
    """Return a plan of the network's scores, else labels, with the options of `build_plan`. Raises NetworkError."""
    graph = prune_onnx(select_onnx(network, precision))[1]
    return build_plan(graph, precision=precision, name=network.name, **options)


def build_plan(
    onnx: bytes,
    *,
    precision: str,
    batch: int = 1,
    compute_capability: str | None = None,
    on_step: OnStep | None = None,
    name: str = "network",
) -> bytes:
    """Return a serialized plan of a portable ONNX (quantized for int8 and fp8) for 1 to `batch` images.

    For a network with a fixed batch the plan is for just that number of images.
    `compute_capability` is as "8.9"; None builds for the GPU of this machine, with `tensorrt_rtx` for all since Ampere.
    Raises NetworkError naming the operator that fails; ImportError.
    """
    trt, log = import_tensorrt(), get_logger()
    log.errors.clear()
    builder = trt.Builder(log)
    network = parse_onnx(builder, convert_precision(onnx, precision=precision, name=name), name=name)
    image = network.get_input(0)
    fixed, *shape = image.shape
    least, most = (1, batch) if fixed == -1 else (fixed, fixed)
    profile = builder.create_optimization_profile()
    profile.set_shape(image.name, (least, *shape), (least, *shape), (most, *shape))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    if compute_capability is not None:
        if compute_capability not in (available := list_compute_capabilities()):
            places = f"{trt.__name__} builds for {', '.join(available) or 'the GPU of this machine only'}"
            raise NetworkError(f"{name}: compute capability {compute_capability!r}; {places}")
        config.num_compute_capabilities = 1
        member = f"SM{compute_capability.replace('.', '')}"
        config.set_compute_capability(trt.ComputeCapability.__members__[member], 0)
    monitor = create_monitor(on_step) if on_step else None
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.error:
        raise monitor.error
    if plan is None:
        raise NetworkError(f"{name}: TensorRT cannot build it: {log.last_error()}")
    return bytes(plan)


def parse_onnx(builder: Any, onnx: bytes, *, name: str) -> Any:
    """Return the strongly typed network definition of an ONNX. Raises NetworkError naming the operator that fails."""
    trt = import_tensorrt()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse(onnx):
        reason = "no reason given"
        if parser.num_errors:
            error = parser.get_error(0)
            operator = error.node_operator()
            reason = f"operator {operator} ({error.node_name()}): " if operator else ""
            reason += summarize_error(error.desc())
        raise NetworkError(f"{name}: TensorRT cannot read it: {reason}")
    return network


def list_compute_capabilities() -> tuple[str, ...]:
    """Return the compute capabilities, as "8.9", that plans can be built for without such a GPU; none in `tensorrt`."""
    members = getattr(getattr(import_tensorrt(), "ComputeCapability", None), "__members__", {})
    return tuple(f"{n[2:-1]}.{n[-1]}" for n in members if n.startswith("SM"))
