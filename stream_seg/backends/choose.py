"""Which backend computes, and with which engine: one from the cache where there is one, else compiled on the spot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np

from stream_seg.backends import onnxruntime, openvino, tensorrt, torch
from stream_seg.backends.cache import content, default_folder, fitting
from stream_seg.backends.engine import Engine
from stream_seg.backends.entry import Entry, in_few_words
from stream_seg.backends.target import Target, target_of
from stream_seg.errors import NetworkError
from stream_seg.network import Network

log = logging.getLogger(__name__)


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
        "tensorrt": Backend("cuda", "pip install 'stream-seg[tensorrt]'", tensorrt.open_engine, tensorrt.lack),
        "openvino": Backend("openvino", "pip install openvino", openvino.open_engine),
        "onnxruntime": Backend("onnxruntime", "pip install onnxruntime", onnxruntime.open_engine),
        "torch": Backend("onnx2pytorch", "pip install 'stream-seg[torch]'", torch.open_engine),
    }
)
"""In the order in which `auto` tries them."""


def installed() -> tuple[str, ...]:
    """The backends that can work here: package and device. Imports no package but CUDA's bindings."""
    return tuple(name for name, backend in BACKENDS.items() if find_spec(backend.package) and not backend.lack())


def chosen(backend: str, *, present: Collection[str]) -> tuple[str, str]:
    """The backend that `backend` means, and why, in a few words. Raises NetworkError naming what to install."""
    if backend != "auto" and backend not in BACKENDS:
        raise NetworkError(f"unknown backend {backend!r}; known: auto, {', '.join(BACKENDS)}")
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


def open_engine(network: Network, *, backend: str = "auto", precision: str = "auto", threads: int = 1) -> Engine:
    """Compile `network`, run it once, and give it. Raises NetworkError.

    An engine that was built for it (`stream-seg engines build`) is taken from the cache. Where `auto` meets a backend
    that does not load or cannot compile this network, it goes on to the next, saying so. The one run warms the engine
    up, and holds what it says against what the network promises.
    """
    present, failed = list(installed()), ""
    while True:
        name, why = chosen(backend, present=present)
        try:
            engine, origin = _opened(network, name, precision=precision, threads=threads)
            break
        except NetworkError as error:
            present.remove(name)
            if backend != "auto" or not present:
                raise
            log.warning("%s; the next backend is tried", error)
            failed = f"{failed}, {name}" if failed else f"without {name}"
    why = failed or why
    info = engine.spec.info
    log.info("%s: %s (%s), %s%s, on %s", info.network, info.backend, why, info.precision, origin, info.device)
    try:
        checked(engine)
    except NetworkError:
        engine.close()
        raise
    return engine


def _opened(network: Network, name: str, *, precision: str, threads: int) -> tuple[Engine, str]:
    """An engine and where it comes from, for the log: the cache, or nothing to say."""
    folder, target = default_folder(), None
    if folder.exists() or name == "tensorrt":
        target = _target(name)
    for entry in _in_cache(folder, network, target, precision) if target else ():
        try:
            engine = content(folder, entry)
            opened = opened_with(network, name, precision=entry.key.precision, threads=threads, engine=engine)
        except NetworkError as error:
            told = str(error) if entry.name in str(error) else f"engine {entry.name}: not loaded: {error}"
            log.warning("%s; stream-seg engines build builds it again", told)
            continue
        return opened, f" built {entry.created:%Y-%m-%d} ({entry.judged})"
    if target is not None and name == "tensorrt":
        from stream_seg.backends.build import plan_for
        from stream_seg.backends.compare import Say

        entry, engine = plan_for(network, target, folder=folder, precision=precision, say=Say(log.info))
        opened = opened_with(network, name, precision=entry.key.precision, threads=threads, engine=engine)
        return opened, f" built now ({entry.judged})"
    opened = opened_with(network, name, precision=precision, threads=threads)
    return opened, _of_shipped(network) if opened.spec.info.precision == "int8" else ""


def _of_shipped(network: Network) -> str:
    report = network.int8_report
    return " not compared with f32" if report is None else f" ({in_few_words(report)})"


def _target(name: str) -> Target:
    try:
        return target_of(name)
    except ImportError as error:
        raise NetworkError(f"backend {name} does not load ({error}): {BACKENDS[name].install}") from error


def _in_cache(folder: Path, network: Network, target: Target, precision: str) -> list[Entry]:
    try:
        return fitting(folder, network, target, precision=precision)
    except NetworkError as error:  # others can write there
        log.warning("%s", error)
        return []


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
