"""TensorRT plans for tests, built for GPUs that are not there: tensorrt_rtx compiles ahead for a compute capability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""7.5 to 12.1, as tensorrt_rtx names them; the accelerators between (9.0, 10.0) are none of its."""


def built_plan(onnx: Path, *, capability: str) -> int:
    """Bytes of the plan of a portable ONNX for one compute capability. Fails with what parser or builder say."""
    import tensorrt_rtx as trt

    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network()
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(onnx)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    assert network.get_input(0).dtype == trt.uint8
    assert {network.get_output(i).name: network.get_output(i).dtype for i in range(network.num_outputs)} == {
        "scores": trt.float32,
        "labels": trt.uint8,
    }
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    profile = builder.create_optimization_profile()
    picture = tuple(network.get_input(0).shape)[1:]
    profile.set_shape("image", (1, *picture), (1, *picture), (2, *picture))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, log.said
    return int(plan.nbytes)


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors."""

        def __init__(self) -> None:
            super().__init__()
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.said.append(message)

    return Log()
