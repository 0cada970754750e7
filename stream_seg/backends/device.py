"""Devices that engines run on, and the precisions that a backend offers on them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from stream_seg.errors import NetworkError

QUANTIZED = ("int8", "fp8")
"""Precisions that need the quantized form of a network."""
ANY_GPU = "any"
"""Device name of an engine that was compiled for a compute capability, not for the GPU of this machine."""


@dataclass(frozen=True)
class Device:
    """A device as one backend uses it.

    `name` is the name in `EngineInfo`, or ANY_GPU. `precisions` are ordered from the fastest to f32; `auto` takes the
    first. `on_request` are precisions that only run when they are named. `compute_capability` is a GPU's, as "8.9".
    """

    name: str
    precisions: tuple[str, ...]
    on_request: tuple[str, ...] = ()
    compute_capability: str | None = None

    @property
    def label(self) -> str:
        """The device in words, for messages and tables."""
        return describe_device(self.name, self.compute_capability)


def describe_device(name: str, compute_capability: str | None) -> str:
    """Return a device in words: "AMD EPYC", "NVIDIA H200 of capability 9.0", "any GPU of capability 8.9"."""
    if compute_capability is None:
        return name
    return f"{'any GPU' if name == ANY_GPU else name} of capability {compute_capability}"


def resolve_precision(precision: str, device: Device, *, quantized: bool, backend: str) -> str:
    """Return `precision`, or for "auto" the fastest on `device`. `quantized`: the network has a quantized form.

    Raises NetworkError for a precision that is not available, naming those that are.
    """
    every = (*device.precisions, *device.on_request)
    available = [name for name in every if quantized or name not in QUANTIZED]
    if precision == "auto":
        return available[0]
    if precision not in available:
        reason = "needs the network's int8 form" if precision in every else f"is not available on {device.label}"
        raise NetworkError(f"{backend}: precision {precision} {reason}; available: {', '.join(available)}")
    return precision


def cpu_name() -> str:
    """Return the model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
