"""The backends. Everything that the rest of the program knows about a backend stands in its entry of BACKENDS."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from stream_seg.backends import onnxruntime, openvino, torch
from stream_seg.backends.engine import Device, Engine
from stream_seg.backends.tensorrt import api as tensorrt_api
from stream_seg.backends.tensorrt import backend as tensorrt
from stream_seg.errors import ConfigError
from stream_seg.installation import install_hint
from stream_seg.network.network import Network
from stream_seg.schema.validation import describe_unknown


@dataclass(frozen=True)
class Compiler:
    """Ahead-of-time compiler of a backend, which turns a network into a file for one device.

    `compile`(network, precision, batch=, compute_capability=, on_step=) returns the file; `create_engine` of the
    backend takes it as `plan=`. `lower`(network, precision) returns the ONNX that is compiled, in its number types, to
    compare engines that this machine cannot run.
    """

    suffix: str
    compile: Callable[..., bytes]
    lower: Callable[[Network, str], bytes]


@dataclass(frozen=True)
class Backend:
    """A library that runs networks.

    `packages` are import names, one of which must be installed; its version is part of an engine's cache key. All
    of `requires`, import names too, must be installed. `install` are requirements, each of which brings them.
    `precisions` are those that the backend has on any device. `find_device` returns the device of this machine, and
    with a compiler that of a compute capability, its argument. `create_engine`(network, precision=, threads=,
    requests=) opens a network in one of the device's precisions, for at most so many calls at once. `find_obstacle`
    returns the reason why an installed backend cannot work, None if it can.
    """

    title: str
    packages: tuple[str, ...]
    install: tuple[str, ...]
    precisions: tuple[str, ...]
    find_device: Callable[..., Device]
    create_engine: Callable[..., Engine]
    requires: tuple[str, ...] = ()
    find_obstacle: Callable[[], str | None] = lambda: None
    needs_gpu: bool = False
    compiler: Compiler | None = None
    install_note: str = ""

    def install_hint(self) -> str:
        """Return the command that installs the backend."""
        return " or ".join(map(install_hint, self.install)) + self.install_note

    def find_package(self) -> str | None:
        """Return the import name of the installed package, None if there is none."""
        return next((name for name in self.packages if find_spec(name)), None)

    def version(self) -> str:
        """Return the version of the installed package, with its name where there are several. Raises ImportError."""
        package = self.find_package()
        if package is None:
            raise ImportError(f"{' or '.join(self.packages)} is not installed")
        number = package_version(package) or "unknown"
        return number if len(self.packages) == 1 else f"{package} {number}"


def package_version(name: str) -> str | None:
    """Return the version of an installed package, by its import or distribution name; None if there is none."""
    with suppress(PackageNotFoundError):  # installed by a distribution of another name, such as onnxruntime-gpu
        return version(name)
    try:
        return str(getattr(import_module(name), "__version__", "unknown")) if find_spec(name) else None
    except ImportError:
        return "unknown"


BACKENDS: dict[str, Backend] = {
    "tensorrt": Backend(
        title="TensorRT",
        packages=tensorrt_api.PACKAGES,
        install=("[tensorrt]", "[tensorrt-rtx]"),
        precisions=("int8", "fp8", "fp16", "f32"),
        find_device=tensorrt.find_device,
        create_engine=tensorrt.create_engine,
        requires=("cuda",),
        find_obstacle=tensorrt.find_obstacle,
        needs_gpu=True,
        compiler=Compiler(".plan", tensorrt.compile_network, tensorrt.lower_network),
    ),
    "openvino": Backend(
        title="OpenVINO",
        packages=("openvino",),
        install=("openvino",),
        precisions=("int8", "bf16", "f32"),
        find_device=openvino.find_device,
        create_engine=openvino.create_engine,
    ),
    "onnxruntime": Backend(
        title="ONNX Runtime",
        packages=("onnxruntime",),
        install=("onnxruntime",),
        precisions=("int8", "fp16", "f32"),
        find_device=onnxruntime.find_device,
        create_engine=onnxruntime.create_engine,
    ),
    "torch": Backend(
        title="torch",
        packages=("torch",),
        install=("[torch]",),
        install_note=", on Python 3.11 or newer",
        precisions=("fp16", "bf16", "f32"),
        find_device=torch.find_device,
        create_engine=torch.create_engine,
        requires=("onnx2pytorch",),
    ),
}
"""By name, in the order in which `auto` tries them."""
GROUPS = ("auto", "cpu", "gpu")
"""Values of a setting `backend` that stand for several backends: all, those that need no GPU, those that do."""


def backend_names() -> tuple[str, ...]:
    """Return the values that a setting `backend` may have."""
    return (*GROUPS, *BACKENDS)


def backends_of(group: str) -> list[str]:
    """Return the backends that a name of GROUPS stands for, in the order in which they are tried."""
    return [name for name, entry in BACKENDS.items() if group == "auto" or entry.needs_gpu == (group == "gpu")]


def precision_names() -> tuple[str, ...]:
    """Return the values that a setting `precision` may have: those of all backends, fewest bits first."""
    names = dict.fromkeys(name for backend in BACKENDS.values() for name in backend.precisions)
    return ("auto", *sorted(names, key=lambda name: int(re.sub(r"\D", "", name) or 0)))


def get_backend(name: str) -> Backend:
    """Return the entry of a backend. Raises ConfigError for an unknown name."""
    if name not in BACKENDS:
        raise ConfigError(describe_unknown("backend", name, backend_names()))
    return BACKENDS[name]
