"""Which backend computes, and with which engine: one from the cache where there is one, else compiled on the spot."""

from __future__ import annotations

import logging
from pathlib import Path

from stream_seg.backends.device import PRECISIONS, Target, target_of
from stream_seg.backends.engine import Engine
from stream_seg.backends.registry import BACKENDS, checked, chosen, installed, opened_with
from stream_seg.engines.cache import content, default_folder, fitting
from stream_seg.engines.cache_entry import Entry, in_few_words
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network

log = logging.getLogger(__name__)


def open_engine(network: Network, *, backend: str = "auto", precision: str = "auto", threads: int = 1) -> Engine:
    """Compile `network`, run it once, and give it. Raises NetworkError, and ConfigError for a
    backend or precision that there is none of and as `trust.secret`.

    An engine that was built for it (`stream-seg engines build`) is taken from the cache. Where `auto` meets a backend
    that does not load or cannot compile this network in `precision`, it goes on to the next, saying so. The one run
    warms the engine up, and holds what it says against what the network promises.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ConfigError(f"unknown precision {precision!r}; known: auto, {', '.join(PRECISIONS)}")
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
        from stream_seg.engines.build import plan_for
        from stream_seg.engines.compare import Say

        try:
            entry, engine = plan_for(network, target, folder=folder, precision=precision, say=Say(log.info))
        except ConfigError as error:  # a precision that it does not have; the next backend may
            raise NetworkError(str(error)) from error
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
