"""Choose the backend and the device for a network, and open it there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec

from stream_seg.backends.engine import QUANTIZED, Device, Engine
from stream_seg.backends.registry import BACKENDS, GROUPS, backends_of, get_backend
from stream_seg.errors import ConfigError, NetworkError, explain_shortage
from stream_seg.network.network import Network


@dataclass(frozen=True)
class Target:
    """The backend, version and device that an engine is built for."""

    backend: str
    version: str
    device: Device


def find_missing(name: str) -> str | None:
    """Return the reason why a backend cannot work on this machine, None if it can. Imports no backend."""
    backend = get_backend(name)
    if backend.find_package() is None or not all(find_spec(package) for package in backend.requires):
        return f"not installed: {backend.install_hint()}"
    return backend.find_obstacle()


def available_backends() -> tuple[str, ...]:
    """Return the backends that can work on this machine, in the order in which `auto` tries them."""
    return tuple(name for name in BACKENDS if find_missing(name) is None)


def pick_backend(backend: str, *, available: Collection[str]) -> tuple[str, str]:
    """Return the backend that `backend`, a name or one of GROUPS, stands for, and the reason in a few words.

    Raises NetworkError with the package to install, ConfigError for an unknown name.
    """
    if backend not in GROUPS:
        get_backend(backend)
        if backend not in available:
            raise NetworkError(f"backend {backend}: {find_missing(backend) or 'not available'}")
        return backend, "as requested"
    missing: list[str] = []
    for name in backends_of(backend):
        entry = BACKENDS[name]
        if name in available:
            best = f"the fastest on a {'GPU' if entry.needs_gpu else 'CPU'}"
            return name, f"{' and '.join(missing)} not installed" if missing else best
        missing += [] if entry.needs_gpu else [name]
    if backend == "gpu":
        raise NetworkError(f"backend gpu: {find_missing(name) or 'not available'}")
    raise NetworkError(f"no backend is installed: {BACKENDS['openvino'].install_hint()}")


def find_target(name: str, compute_capability: str | None = None) -> Target:
    """Return this machine's device for a backend, or the device of a compute capability.

    Raises NetworkError where the backend does not load or finds no device, ConfigError for an unknown name and for a
    backend that only builds for this machine.
    """
    backend = get_backend(name)
    if compute_capability is not None and backend.compiler is None:
        raise ConfigError(f"compute capability {compute_capability}: {name} only builds for this machine")
    with _import_errors(name):
        device = backend.find_device() if compute_capability is None else backend.find_device(compute_capability)
        return Target(name, backend.version(), device)


def open_backend(
    network: Network,
    name: str,
    *,
    precision: str = "auto",
    threads: int = 1,
    requests: int = 1,
    built: bytes | None = None,
) -> Engine:
    """Open `network` on the backend `name`. Raises NetworkError.

    `built` is an engine of the cache, in `precision`: the file of an ahead-of-time compiler, else an ONNX.
    """
    backend = get_backend(name)
    plan: dict[str, bytes] = {}
    with _import_errors(name):
        if built is None:
            quantized = network.int8 is not None
            precision = resolve_precision(precision, backend.find_device(), quantized=quantized, backend=name)
        elif backend.compiler is not None:
            plan["plan"] = built
        elif precision == "int8":
            network = replace(network, int8=built, int8_tested=False)
        return backend.create_engine(network, precision=precision, threads=threads, requests=requests, **plan)


def resolve_precision(precision: str, device: Device, *, quantized: bool, backend: str) -> str:
    """Return `precision`, or for "auto" the fastest on `device`. Raises NetworkError naming the available ones."""
    every = (*device.precisions, *device.on_request)
    available = [name for name in every if quantized or name not in QUANTIZED]
    if precision == "auto":
        return available[0]
    if precision not in available:
        reason = "needs the network's int8 form" if precision in every else f"is not available on {device.label}"
        raise NetworkError(f"{backend}: precision {precision} {reason}; available: {', '.join(available)}")
    return precision


@contextmanager
def _import_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        todo = explain_shortage(error) or BACKENDS[name].install_hint()
        raise NetworkError(f"backend {name} does not load ({error}): {todo}") from error
