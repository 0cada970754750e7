"""ONNX Runtime: the engine for a CPU where OpenVINO is missing, and for a GPU where its package has the providers."""

from __future__ import annotations

import logging
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result, as_result, cheapest, in_batches, one_line
from stream_seg.backends.tensorrt.precision import typed
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

log = logging.getLogger(__name__)

PROVIDERS: Mapping[str, str] = MappingProxyType(
    {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
)
"""What `device` means, in the order in which "auto" tries them."""


def open_engine(
    network: Network, *, precision: str, threads: int, output: str | None = None, device: str = "auto"
) -> Engine:
    """Load `network` for `device`: "cpu", "cuda", "tensorrt", or "auto". Raises NetworkError; ImportError.

    `output` is "scores" or "labels"; None takes scores where there are any.
    """
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
    devices = placed(device, available=ort.get_available_providers())
    precision = settled(precision, quantised=network.int8 is not None, device=devices[0])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other stages need the cores
    serialised = network.int8 if precision == "int8" and network.int8 else network.f32
    try:
        name, pruned = cheapest(serialised, output)
        if precision == "fp16":
            pruned = typed(pruned, precision=precision, name=network.name)
        providers = [PROVIDERS[place] for place in devices]
        try:
            session = ort.InferenceSession(pruned, options, providers=providers)
        except state.InvalidGraph as error:  # its own doing, where it transposes an fp8; else it comes again
            log.warning("%s: ONNX Runtime: without its optimiser, and slower: %s", network.name, one_line(error))
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            session = ort.InferenceSession(pruned, options, providers=providers)
        shape = session.run([name], {"image": np.zeros((1, *network.size, 3), np.uint8)})[0].shape[1:]
    except errors as error:
        raise NetworkError(f"{network.name}: ONNX Runtime cannot load it: {one_line(error)}") from error
    # where a provider does not load, ONNX Runtime goes on with the next
    took = next(place for place, provider in PROVIDERS.items() if provider == session.get_providers()[0])
    if device not in ("auto", took):
        raise NetworkError(f"{network.name}: onnxruntime: {PROVIDERS[device]} does not load on this machine")

    def run(images: Images) -> Result:
        return as_result(name, in_batches(lambda image: session.run([name], {"image": image})[0], images))

    info = EngineInfo(network.name, "onnxruntime", precision, cpu_name() if took == "cpu" else took)
    return Engine(EngineSpec(network.size, network.classes, info, shapes={name: shape}), run, errors=errors)


def placed(device: str, *, available: Collection[str]) -> tuple[str, ...]:
    """The devices to try for `device`, of those that the package has; the CPU last. Raises NetworkError."""
    possible = tuple(name for name, provider in PROVIDERS.items() if provider in available)
    if device == "auto":
        return possible
    if device not in possible:
        raise NetworkError(f"onnxruntime: device {device!r} is not in this package; here: auto, {', '.join(possible)}")
    return (device,) if device == "cpu" else (device, "cpu")


def settled(precision: str, *, quantised: bool, device: str = "cpu") -> str:
    """The precision that is meant by `precision`. Raises NetworkError for one that is not to be had."""
    # on a CPU ONNX Runtime computes fp16 by way of f32
    possible = [p for p, had in (("int8", quantised), ("fp16", device != "cpu"), ("f32", True)) if had]
    if precision == "auto":
        return possible[0]
    if precision not in possible:
        raise NetworkError(f"onnxruntime: precision {precision} is not to be had; here: {', '.join(possible)}")
    return precision


def cpu_name() -> str:
    """The processor as its maker calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
