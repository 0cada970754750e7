"""ONNX Runtime: a CPU backend that runs nearly everywhere, and a GPU backend with the package onnxruntime-gpu."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.cpu import cpu_name
from stream_seg.backends.engine import (
    Device,
    Engine,
    Images,
    make_engine,
    prune_onnx,
    select_onnx,
    summarize_error,
)
from stream_seg.backends.tensorrt.precision import convert_precision
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

LOG = logging.getLogger(__name__)

PROVIDERS = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
"""Execution provider by device name, the preferred one first."""


def find_device() -> Device:
    """Return the first device that the installed package has a provider for. Raises ImportError."""
    name = list_devices()[0]
    # on a CPU ONNX Runtime computes fp16 by way of f32
    return Device(cpu_name(), ("int8", "f32")) if name == "cpu" else Device(name, ("int8", "fp16", "f32"), is_gpu=True)


def list_devices() -> list[str]:
    """Return the devices that the installed package has a provider for; the CPU is the last. Raises ImportError."""
    import onnxruntime as ort

    return [name for name, provider in PROVIDERS.items() if provider in ort.get_available_providers()]


def create_engine(network: Network, *, precision: str, threads: int, requests: int = 1) -> Engine:
    """Load `network` for the first device whose provider loads. Raises NetworkError; ImportError."""
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
    providers = [PROVIDERS[name] for name in list_devices()]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other stages need the cores
    try:
        output, onnx = prune_onnx(select_onnx(network, precision))
        if precision == "fp16":
            onnx = convert_precision(onnx, precision=precision, name=network.name)
        try:
            session = ort.InferenceSession(onnx, options, providers=providers)
        except state.InvalidGraph as error:  # its optimizer transposes fp8 into an invalid graph; other causes recur
            LOG.warning("%s: ONNX Runtime: optimizer disabled, slower: %s", network.name, summarize_error(error))
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            session = ort.InferenceSession(onnx, options, providers=providers)
        count = session.get_inputs()[0].shape[0]
        batch = count if isinstance(count, int) else 1
        session.run([output], {"image": np.zeros((batch, *network.size, 3), np.uint8)})
    except errors as error:
        raise NetworkError(f"{network.name}: ONNX Runtime cannot load it: {summarize_error(error)}") from error
    # ONNX Runtime falls back to the next provider where one does not load
    device = next(name for name, provider in PROVIDERS.items() if provider == session.get_providers()[0])
    info = EngineInfo(network.name, "onnxruntime", precision, cpu_name() if device == "cpu" else device, requests)

    def compute(images: Images) -> NDArray[np.generic]:
        values: NDArray[np.generic] = session.run([output], {"image": images})[0]
        return values

    return make_engine(network, output, compute, info=info, batch=batch, least=batch, errors=errors)
