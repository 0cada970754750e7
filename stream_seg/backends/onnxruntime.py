"""ONNX Runtime: a CPU backend that runs nearly everywhere, and a GPU backend with the package onnxruntime-gpu."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np

from stream_seg.backends.device import Device, cpu_name
from stream_seg.backends.engine import Engine, EngineSpec, make_run, prune_to_output, summarize_error
from stream_seg.backends.tensorrt.precision import convert_precision
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

log = logging.getLogger(__name__)

PROVIDERS: Mapping[str, str] = MappingProxyType(
    {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
)
"""Execution provider by device name, in the order in which "auto" tries them."""


def find_device() -> Device:
    """Return the first device that the installed package has a provider for. Raises ImportError."""
    import onnxruntime as ort

    name = select_devices("auto", available=ort.get_available_providers())[0]
    # on a CPU ONNX Runtime computes fp16 by way of f32
    return Device(cpu_name(), ("int8", "f32")) if name == "cpu" else Device(name, ("int8", "fp16", "f32"))


def create_engine(
    network: Network, *, precision: str, threads: int, output: str | None = None, device: str = "auto"
) -> Engine:
    """Load `network` for `device`: "cpu", "cuda", "tensorrt" or "auto". Raises NetworkError; ImportError.

    `output` is "scores" or "labels", by default scores if there are any.
    """
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
    providers = [PROVIDERS[name] for name in select_devices(device, available=ort.get_available_providers())]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other stages need the cores
    onnx = network.int8 if precision == "int8" and network.int8 else network.f32
    try:
        name, onnx = prune_to_output(onnx, output)
        if precision == "fp16":
            onnx = convert_precision(onnx, precision=precision, name=network.name)
        try:
            session = ort.InferenceSession(onnx, options, providers=providers)
        except state.InvalidGraph as error:  # its optimizer transposes fp8 into an invalid graph; other causes recur
            log.warning("%s: ONNX Runtime: optimizer disabled, slower: %s", network.name, summarize_error(error))
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            session = ort.InferenceSession(onnx, options, providers=providers)
        shape = session.run([name], {"image": np.zeros((1, *network.size, 3), np.uint8)})[0].shape[1:]
    except errors as error:
        raise NetworkError(f"{network.name}: ONNX Runtime cannot load it: {summarize_error(error)}") from error
    # ONNX Runtime falls back to the next provider where one does not load
    actual = next(name for name, provider in PROVIDERS.items() if provider == session.get_providers()[0])
    if device not in ("auto", actual):
        raise NetworkError(f"{network.name}: onnxruntime: {PROVIDERS[device]} does not load on this machine")

    run = make_run(name, lambda image: session.run([name], {"image": image})[0])
    info = EngineInfo(network.name, "onnxruntime", precision, cpu_name() if actual == "cpu" else actual)
    return Engine(EngineSpec(network.size, network.classes, info, shapes={name: shape}), run, errors=errors)


def select_devices(device: str, *, available: Collection[str]) -> tuple[str, ...]:
    """Return the devices to try for `device`, given the `available` providers; the CPU last. Raises NetworkError."""
    possible = tuple(name for name, provider in PROVIDERS.items() if provider in available)
    if device == "auto":
        return possible
    if device not in possible:
        raise NetworkError(
            f"onnxruntime: device {device!r} is not in the installed package; available: auto, {', '.join(possible)}"
        )
    return (device,) if device == "cpu" else (device, "cpu")
