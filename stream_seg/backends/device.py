"""What an engine is built for: a version of a backend on one device, and the precisions that are to be had there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from types import MappingProxyType

from stream_seg.backends.onnxruntime import cpu_name, placed
from stream_seg.errors import ConfigError

PRECISIONS = ("int8", "fp8", "fp16", "bf16", "f32")
"""What there is on some machine, the cheapest first."""
FP8_FROM = (8, 9)
"""The first compute capability with fp8."""


@dataclass(frozen=True)
class Target:
    """`device` is its name as `EngineInfo` says it, "any" for a GPU that is not here. `precisions` from the lowest
    that is built without being asked for to f32, `asked` those that are built only then; `suffix` is that of the
    engine's file."""

    backend: str
    version: str
    device: str
    precisions: tuple[str, ...]
    compute_capability: str | None = None
    suffix: str = ".onnx"
    asked: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The device as a sentence says it."""
        return place(self.device, self.compute_capability)


def place(device: str, compute_capability: str | None) -> str:
    """A device as a sentence says it."""
    if compute_capability is None:
        return device
    return f"{'any GPU' if device == 'any' else device} of capability {compute_capability}"


def target_of(backend: str, compute_capability: str | None = None) -> Target:
    """This machine, or with `compute_capability` a GPU that TensorRT builds for without having it.

    Raises ImportError where the backend does not load, NetworkError without a GPU, ConfigError where the backend has
    no compute capabilities.
    """
    if backend == "tensorrt":
        return _tensorrt(compute_capability)
    if compute_capability is not None:
        raise ConfigError(f"compute capability {compute_capability}: is a GPU's; {backend} builds for what is here")
    return TARGETS[backend]()


def _openvino() -> Target:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # see backends/openvino.py
    import openvino as ov

    core = ov.Core()
    bf16 = ("bf16",) if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else ()
    device = core.get_property("CPU", "FULL_DEVICE_NAME")
    return Target("openvino", version("openvino"), device, ("int8", *bf16, "f32"))


def _onnxruntime() -> Target:
    import onnxruntime as ort

    place = placed("auto", available=ort.get_available_providers())[0]
    if place != "cpu":
        return Target("onnxruntime", ort.__version__, place, ("int8", "fp16", "f32"))
    return Target("onnxruntime", ort.__version__, cpu_name(), ("int8", "f32"))


def _torch() -> Target:
    import torch

    if torch.cuda.is_available():
        return Target("torch", torch.__version__, torch.cuda.get_device_name(), ("fp16", "bf16", "f32"))
    return Target("torch", torch.__version__, cpu_name(), ("bf16", "f32"))


def _tensorrt(compute_capability: str | None) -> Target:
    from stream_seg.backends.tensorrt.api import module
    from stream_seg.backends.tensorrt.cuda import gpu

    trt = module()
    device, capability = ("any", compute_capability) if compute_capability else gpu()
    told = f"{trt.__name__} {trt.__version__}"
    asked = ("fp8",) if tuple(map(int, capability.split("."))) >= FP8_FROM else ()
    return Target("tensorrt", told, device, ("int8", "fp16", "f32"), capability, suffix=".plan", asked=asked)


TARGETS: Mapping[str, Callable[[], Target]] = MappingProxyType(
    {"openvino": _openvino, "onnxruntime": _onnxruntime, "torch": _torch}
)
