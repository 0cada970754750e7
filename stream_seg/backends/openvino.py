"""OpenVINO: the fastest backend on a CPU."""

from __future__ import annotations

import sys
from functools import lru_cache
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.engine import Device, Engine, Images, make_engine, select_onnx, select_output, summarize_error
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

_OPENING = Lock()


def find_device() -> Device:
    """Return this machine's CPU. Raises ImportError where OpenVINO is missing."""
    core = _open_core()
    bf16 = ("bf16",) if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else ()
    return Device(core.get_property("CPU", "FULL_DEVICE_NAME"), ("int8", *bf16, "f32"))


def create_engine(network: Network, *, precision: str, threads: int, requests: int = 1) -> Engine:
    """Compile `network` for this machine's CPU, for one image if it may be one. Raises NetworkError; ImportError."""
    core = _open_core()
    import openvino as ov

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads * requests,
        "NUM_STREAMS": requests,
        # precision of the operators that are not quantized; without the hint the CPU plugin decides
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        # a pinned thread waits for its core while decoder and encoder use it
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = core.read_model(_select_correct_onnx(network, precision))
        results = {name: result for result in model.get_results() for name in result.output(0).get_names()}
        output = select_output(results)
        # OpenVINO computes every output, also the labels beside the scores of networks that version 0.1 exported
        model = ov.Model([results[output]], model.get_parameters())
        count = model.inputs[0].partial_shape[0]
        batch = 1 if count.is_dynamic else count.get_length()
        model.reshape([batch, *network.size, 3])
        compiled = core.compile_model(model, "CPU", options)
        shape = compiled.output(0).partial_shape
    except RuntimeError as error:
        raise NetworkError(f"{network.name}: OpenVINO cannot compile it: {summarize_error(error)}") from error
    if shape.is_dynamic:
        fault = f"the size of output {output} depends on the image (shape {shape})"
        raise NetworkError(f"{network.name}: {fault}; expected a class for every pixel")
    size, dtype = tuple(shape.to_shape()), compiled.output(0).element_type.to_dtype()
    free, queued = SimpleQueue[Any](), int(requests > 1)
    for _ in range(requests + queued):
        free.put(compiled.create_infer_request())
    device = core.get_property("CPU", "FULL_DEVICE_NAME")
    info = EngineInfo(network.name, "openvino", precision, device, requests)

    def compute(images: Images) -> NDArray[np.generic]:
        values = np.empty(size, dtype)
        request = free.get()
        try:
            request.set_output_tensor(ov.Tensor(values, shared_memory=True))  # saves a copy
            request.infer(images, share_inputs=True, share_outputs=True)
        finally:
            free.put(request)
        return values

    return make_engine(network, output, compute, info=info, batch=batch, least=batch, queued=queued)


def _select_correct_onnx(network: Network, precision: str) -> bytes:
    serialized = select_onnx(network, precision)
    if b"QuantizeLinear" not in serialized or (precision == "int8" and network.int8_tested):
        return serialized
    from stream_seg.backends.openvino_quantized import correct_quantized  # imports onnx, which takes 0.1 s

    return correct_quantized(serialized, name=network.name)


def _open_core() -> Any:
    """Return the core of this process.

    There is one, until the program ends. The CPU plugin gives the thread that loads it a stack for signals, and unmaps
    that with the last core: in another thread this would leave the first one without, and its next signal is a crash.
    """
    with _OPENING:
        return _create_core()


@lru_cache
def _create_core() -> Any:
    # openvino_telemetry would fork this process at the first model and report to a web service
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as ov

    return ov.Core()
