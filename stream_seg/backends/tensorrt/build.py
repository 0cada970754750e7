"""Build a TensorRT plan from an ONNX, with `tensorrt` or `tensorrt_rtx`.

`tensorrt_rtx` also builds for GPUs that this machine does not have, in a second, and compiles the kernels when the plan
first runs. `tensorrt` measures its kernels on the GPU of this machine and builds for that GPU only. A plan holds no
metadata; the engine cache keeps them beside it.
"""

from __future__ import annotations

from typing import Any

from stream_seg.backends.engine import summarize_error
from stream_seg.backends.tensorrt.api import OnStep, create_monitor, get_logger, import_tensorrt
from stream_seg.backends.tensorrt.precision import convert_precision
from stream_seg.errors import NetworkError


def build_plan(
    onnx: bytes,
    *,
    precision: str,
    size: tuple[int, int],
    batch: tuple[int, int] = (1, 1),
    compute_capability: str | None = None,
    on_step: OnStep | None = None,
    name: str = "network",
) -> bytes:
    """Return a serialized plan of a portable ONNX (quantized for int8 and fp8) for batch[0] to batch[1] images.

    `compute_capability` is as "8.9"; None builds for the GPU of this machine, with `tensorrt_rtx` for all since Ampere.
    Raises NetworkError naming the operator that fails; ImportError.
    """
    trt = import_tensorrt()
    log = get_logger()
    log.errors.clear()
    builder = trt.Builder(log)
    network = parse_onnx(builder, convert_precision(onnx, precision=precision, name=name), name=name)
    config = builder.create_builder_config()
    config.add_optimization_profile(_make_profile(builder, network, size=size, batch=batch, name=name))
    if compute_capability is not None:
        _set_compute_capability(config, compute_capability, name=name)
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


def _make_profile(builder: Any, network: Any, *, size: tuple[int, int], batch: tuple[int, int], name: str) -> Any:
    tensor = network.get_input(0)
    least, most = batch
    if not 1 <= least <= most:
        raise NetworkError(f"{name}: batch {least} to {most}: must be 1 <= first <= last")
    shape = (least, *size, 3)
    if any(fixed not in (-1, side) for fixed, side in zip(tuple(tensor.shape)[1:], shape[1:], strict=True)):
        raise NetworkError(f"{name}: takes images of {tuple(tensor.shape)[1:]}, not of {shape[1:]}")
    if tensor.shape[0] not in (-1, least) or (tensor.shape[0] != -1 and least != most):
        raise NetworkError(f"{name}: takes {tensor.shape[0]} images at a time, not {least} to {most}")
    tensor.shape = (tensor.shape[0], *size, 3)  # fixes an open input size, and with it those of the outputs
    profile = builder.create_optimization_profile()
    profile.set_shape(tensor.name, shape, shape, (most, *size, 3))
    return profile


def _set_compute_capability(config: Any, compute_capability: str, *, name: str) -> None:
    trt, available = import_tensorrt(), list_compute_capabilities()
    if compute_capability not in available:
        allowed = ", ".join(available) or "the GPU of this machine only"
        raise NetworkError(f"{name}: compute capability {compute_capability!r}; {trt.__name__} builds for {allowed}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{compute_capability.replace('.', '')}"], 0)
