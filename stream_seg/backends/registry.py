"""The backends: what each needs, and how it opens a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import MappingProxyType

import numpy as np

from stream_seg.backends import onnxruntime, openvino, torch
from stream_seg.backends.engine import Engine
from stream_seg.backends.tensorrt import backend as tensorrt
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network


@dataclass(frozen=True)
class Backend:
    """The package that it needs, how to install it, and the function that opens it (network, precision=, threads=).

    `lack` says what else keeps it from working here, such as a GPU that is missing.
    """

    package: str
    install: str
    open_engine: Callable[..., Engine]
    lack: Callable[[], str | None] = lambda: None


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "tensorrt": Backend("cuda", "pip install '.[tensorrt]'", tensorrt.open_engine, tensorrt.lack),
        "openvino": Backend("openvino", "pip install openvino", openvino.open_engine),
        "onnxruntime": Backend("onnxruntime", "pip install onnxruntime", onnxruntime.open_engine),
        "torch": Backend("onnx2pytorch", "pip install '.[torch]', on Python 3.11 or newer", torch.open_engine),
    }
)
"""In the order in which `auto` tries them."""


def installed() -> tuple[str, ...]:
    """The backends that can work here: package and device. Imports no package but CUDA's bindings."""
    return tuple(name for name, backend in BACKENDS.items() if find_spec(backend.package) and not backend.lack())


def chosen(backend: str, *, present: Collection[str]) -> tuple[str, str]:
    """The backend that `backend` means, and why, in a few words. Raises NetworkError naming what to install,
    ConfigError for a name that there is none of."""
    if backend != "auto" and backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
    if backend != "auto":
        if backend not in present:
            lack = BACKENDS[backend].lack() or f"is not installed: {BACKENDS[backend].install}"
            raise NetworkError(f"backend {backend} {lack}")
        return backend, "as asked"
    for name in BACKENDS:
        if name in present:
            if name == "tensorrt":
                return name, "the fastest on a GPU"
            missing = [other for other in list(BACKENDS)[1 : list(BACKENDS).index(name)] if other not in present]
            return name, f"{' and '.join(missing)} not installed" if missing else "the fastest on a CPU"
    raise NetworkError(f"no backend is installed: {BACKENDS['openvino'].install}")


def opened_with(
    network: Network, name: str, *, precision: str, threads: int = 1, engine: bytes | None = None
) -> Engine:
    """`network` on the backend `name`, with what was built for it if given. Raises NetworkError."""
    keys: dict[str, bytes] = {}
    if engine is not None and name == "tensorrt":
        keys["plan"] = engine
        network = replace(network, int8=network.int8 or b"") if precision in ("int8", "fp8") else network
    elif engine is not None and precision == "int8":
        network = replace(network, int8=engine)
    try:
        return BACKENDS[name].open_engine(network, precision=precision, threads=threads, **keys)
    except ImportError as error:
        raise NetworkError(f"backend {name} does not load ({error}): {BACKENDS[name].install}") from error


def checked(engine: Engine) -> None:
    """Run an engine once, and hold what it says against what the network promises. Raises NetworkError."""
    classes, size, name = len(engine.spec.classes), engine.spec.size, engine.spec.info.network
    result = engine.infer(np.zeros((1, *size, 3), np.uint8))
    if result.scores is not None and (result.scores.ndim != 4 or result.scores.shape[:2] != (1, classes)):
        raise NetworkError(
            f"{name}: scores of shape {result.scores.shape}; expected (1, {classes}, h, w): {classes} classes"
        )
    if result.labels is not None and result.labels.shape != (1, *size):
        raise NetworkError(f"{name}: labels of shape {result.labels.shape}; expected (1, {size[0]}, {size[1]})")
