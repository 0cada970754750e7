"""From an ONNX to a TensorRT plan, with `tensorrt` or `tensorrt_rtx`, which are one API under two names.

`tensorrt_rtx` builds for GPUs that this machine does not have, in a second, and finds the kernels when the plan is
first run; it ignores timing caches and builds no plan for other versions. `tensorrt` measures its kernels on the GPU
that it builds for. A plan holds no metadata: what it is, stands beside it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from stream_seg.backends.engine import one_line
from stream_seg.backends.tensorrt.api import Progress, logger, module, monitor
from stream_seg.backends.tensorrt.precision import typed
from stream_seg.errors import NetworkError
from stream_seg.files import replace_file


def build(
    onnx: bytes,
    *,
    precision: str,
    size: tuple[int, int],
    batch: tuple[int, int] = (1, 1),
    compute_capability: str | None = None,
    portable: bool = False,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
    name: str = "network",
) -> bytes:
    """A serialised plan of an interchange ONNX (for int8 and fp8 its quantised form), batch[0] to batch[1] pictures.

    `compute_capability` as "8.9"; None builds for the GPU that is here, `tensorrt_rtx` for all since Ampere. `portable`
    lets `tensorrt` build a plan for other GPUs since Ampere and later versions. Raises NetworkError: one line that
    names the operator; ImportError.
    """
    trt = module()
    log = logger()
    log.complaints.clear()
    builder = trt.Builder(log)
    network = parsed(builder, typed(onnx, precision=precision, name=name), name=name)
    config = builder.create_builder_config()
    config.add_optimization_profile(_profile(builder, network, size=size, batch=batch, name=name))
    _aim(config, compute_capability=compute_capability, portable=portable, name=name)
    watch = monitor(progress) if progress else None
    config.progress_monitor = watch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # for tensorrt_rtx a timing cache is one
        if timing_cache:
            _use(timing_cache, config)
        plan = builder.build_serialized_network(network, config)
        if timing_cache and plan is not None:
            replace_file(timing_cache, bytes(config.get_timing_cache().serialize()))
    if watch is not None and watch.raised:
        raise watch.raised
    if plan is None:
        raise NetworkError(f"{name}: TensorRT cannot build it: {log.complaint()}")
    return bytes(plan)


def parsed(builder: Any, onnx: bytes, *, name: str) -> Any:
    """The network definition that an ONNX describes, strongly typed. Raises NetworkError naming the operator."""
    trt = module()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse(onnx):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        where = [f"operator {e.node_operator()} ({e.node_name()}): " if e.node_operator() else "" for e in errors]
        told = where[0] + one_line(errors[0].desc()) if errors else "no reason given"
        raise NetworkError(f"{name}: TensorRT cannot read it: {told}")
    return network


def capabilities() -> tuple[str, ...]:
    """The compute capabilities that a plan can be built for without such a GPU, as "8.9"; none with `tensorrt`."""
    members = getattr(getattr(module(), "ComputeCapability", None), "__members__", {})
    return tuple(f"{n[2:-1]}.{n[-1]}" for n in members if n.startswith("SM"))


def _profile(builder: Any, network: Any, *, size: tuple[int, int], batch: tuple[int, int], name: str) -> Any:
    tensor = network.get_input(0)
    least, most = batch
    if not 1 <= least <= most:
        raise NetworkError(f"{name}: batch {least} to {most}: must be 1 <= first <= last")
    wanted = (least, *size, 3)
    if any(has not in (-1, is_) for has, is_ in zip(tuple(tensor.shape)[1:], wanted[1:], strict=True)):
        raise NetworkError(f"{name}: takes pictures of {tuple(tensor.shape)[1:]}, not of {wanted[1:]}")
    if tensor.shape[0] not in (-1, least) or (tensor.shape[0] != -1 and least != most):
        raise NetworkError(f"{name}: takes {tensor.shape[0]} pictures at a time, not {least} to {most}")
    tensor.shape = (tensor.shape[0], *size, 3)  # an input of any size gets this one, and so do its outputs
    profile = builder.create_optimization_profile()
    profile.set_shape(tensor.name, wanted, wanted, (most, *size, 3))
    return profile


def _aim(config: Any, *, compute_capability: str | None, portable: bool, name: str) -> None:
    trt = module()
    if compute_capability is not None:
        if compute_capability not in capabilities():
            allowed = ", ".join(capabilities()) or "none: tensorrt builds for the GPU that is here"
            raise NetworkError(
                f"{name}: compute capability {compute_capability!r}; {trt.__name__} builds for {allowed}"
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{compute_capability.replace('.', '')}"], 0)
    if portable:
        if trt.__name__ == "tensorrt_rtx":
            raise NetworkError(f"{name}: portable: tensorrt_rtx has no such plans; build for several capabilities")
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _use(timing_cache: Path, config: Any) -> None:
    """Begin with the kernel timings of earlier builds; TensorRT checks them, and leaves those of another GPU out."""
    known = timing_cache.read_bytes() if timing_cache.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
