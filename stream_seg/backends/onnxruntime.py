"""ONNX Runtime: the engine for a CPU where OpenVINO is missing."""

from __future__ import annotations

import platform
from pathlib import Path

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result, as_result, one_by_one, one_line
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network import Network


def open_engine(network: Network, *, precision: str, threads: int) -> Engine:
    """Load `network` for this machine's CPU. Raises NetworkError; ImportError where ONNX Runtime is missing."""
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
    precision = settled(precision, quantised=network.int8 is not None)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other stages need the cores
    serialised = network.int8 if precision == "int8" and network.int8 else network.f32
    try:
        name, pruned = cheapest(serialised)
        session = ort.InferenceSession(pruned, options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise NetworkError(f"{network.name}: ONNX Runtime cannot load it: {one_line(error)}") from error

    def run(images: Images) -> Result:
        return as_result(name, one_by_one(lambda image: session.run([name], {"image": image})[0], images))

    info = EngineInfo(network.name, "onnxruntime", precision, cpu_name())
    return Engine(EngineSpec(network.size, network.classes, info), run, errors=errors)


def cheapest(serialised: bytes) -> tuple[str, bytes]:
    """The output to compute, "scores" where there are any, and the graph cut down to it: it runs whatever it holds."""
    import onnx
    import onnx.utils

    model = onnx.load_from_string(serialised)
    name = "scores" if any(output.name == "scores" for output in model.graph.output) else "labels"
    return name, onnx.utils.Extractor(model).extract_model(["image"], [name]).SerializeToString()


def settled(precision: str, *, quantised: bool) -> str:
    """The precision that is meant by `precision`. Raises NetworkError for one that is not to be had."""
    possible = ["int8", "f32"] if quantised else ["f32"]
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
