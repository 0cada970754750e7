"""OpenVINO: the engine for a CPU. It computes one picture at a time and as little of the graph as is needed."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result, as_result, in_batches, one_line, wanted
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network


def open_engine(
    network: Network, *, precision: str, threads: int, output: str | None = None, cache: Path | None = None
) -> Engine:
    """Compile `network` for this machine's CPU. Raises NetworkError; ImportError where OpenVINO is missing.

    `output` is "scores" or "labels"; None takes scores where there are any. In the folder `cache` OpenVINO keeps what
    it compiled, under names that tell model, settings and CPU apart.
    """
    # its telemetry would fork this process at the first model and report to a web service; without it a stub stands in
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as ov

    core = ov.Core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = settled(precision, quantised=network.int8 is not None, capabilities=capabilities)
    try:
        model = core.read_model(network.int8 if precision == "int8" else network.f32)
        results = {name: result for result in model.get_results() for name in result.output(0).get_names()}
        name = wanted(results, output)
        # enlarging 11 classes and taking the arg-max costs more here than where the labels are needed
        model = ov.Model([results[name]], model.get_parameters())
        model.reshape([1, *network.size, 3])
        compiled = core.compile_model(
            model, "CPU", _settings(precision, threads) | ({"CACHE_DIR": str(cache)} if cache else {})
        )
        given = compiled.output(0).partial_shape
    except RuntimeError as error:
        raise NetworkError(f"{network.name}: OpenVINO cannot compile it: {one_line(error)}") from error
    if given.is_dynamic:
        raise NetworkError(
            f"{network.name}: how much it says depends on the picture ({name} of shape {given}); "
            "one class for every pixel is expected"
        )
    request = compiled.create_infer_request()

    def run(images: Images) -> Result:
        return as_result(name, in_batches(lambda image: request.infer(image, share_inputs=True)[0], images))

    info = EngineInfo(network.name, "openvino", precision, core.get_property("CPU", "FULL_DEVICE_NAME"))
    shapes = {name: tuple(given.to_shape())[1:]}
    return Engine(EngineSpec(network.size, network.classes, info, shapes=shapes), run, errors=(RuntimeError,))


def settled(precision: str, *, quantised: bool, capabilities: Collection[str]) -> str:
    """The precision that is meant by `precision`. Raises NetworkError for one that is not to be had."""
    possible = [p for p, had in (("int8", quantised), ("bf16", "BF16" in capabilities), ("f32", True)) if had]
    if precision == "auto":
        return possible[0]
    if precision not in possible:
        why = "the network has no int8 form" if precision == "int8" else "this CPU does not compute it"
        raise NetworkError(f"openvino: precision {precision}: {why}; here: {', '.join(possible)}")
    return precision


def _settings(precision: str, threads: int) -> dict[str, str | int | bool]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # what a quantised network leaves in floating point stays f32; without the hint the CPU would decide
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        # a pinned thread waits for its core while decoder and encoder use it
        "ENABLE_CPU_PINNING": False,
    }
