"""Open an engine for a network: from the engine cache if one was built, else compiled on the spot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from stream_seg.backends.choose import available_backends, find_target, open_backend, pick_backend
from stream_seg.backends.engine import Engine, check_engine
from stream_seg.backends.registry import BACKENDS, GROUPS, backends_of, precision_names
from stream_seg.engines.cache import cache_folder, find_engines, find_preferred_backend, read_engine
from stream_seg.engines.cache_entry import Entry, summarize_report
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network
from stream_seg.schema.validation import describe_unknown

LOG = logging.getLogger(__name__)


def open_engine(
    network: Network,
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    requests: int = 1,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Engine:
    """Return an engine of `network` that has run once. Raises NetworkError; ConfigError for an unknown name.

    An engine that was built for the network (`stream-seg engines build`) is taken from the cache. With backend "auto",
    "cpu" or "gpu" it may have been built instead of one for the first backend, and a backend that does not load or
    cannot compile the network in `precision` is logged, and the next one is tried. The first run warms the engine up
    and checks its output. The engine runs up to `requests` calls at once, each with `threads` threads; some backends
    run one only (`EngineInfo.requests`). `on_progress` receives the steps of an engine that is built now. Also raises
    ConfigError as `cache_entry.read_secret`.
    """
    if precision not in precision_names():
        raise ConfigError(describe_unknown("precision", precision, precision_names()))
    available, failed = list(available_backends()), list[str]()
    if backend in GROUPS:
        available = [name for name in backends_of(backend) if name in available]
    preferred = None
    if backend in GROUPS and len(available) > 1:
        preferred = find_preferred_backend(cache_folder(), network, available, precision=precision)
    while True:
        name, reason = pick_backend(preferred or backend, available=available)
        if preferred is not None:
            reason, preferred = f"its engine was built instead of one for {available[0]}", None
        try:
            engine, origin = _open(
                network, name, precision=precision, threads=threads, requests=requests, on_progress=on_progress
            )
            break
        except NetworkError as error:
            available.remove(name)
            if backend not in GROUPS or not available:
                raise
            LOG.warning("%s; trying the next backend", error)
            failed.append(name)
    if failed:
        reason = f"without {', '.join(failed)}"
    info = engine.spec.info
    LOG.info("%s: %s (%s), %s%s, on %s", info.network, info.backend, reason, info.precision, origin, info.device)
    try:
        check_engine(engine)
    except NetworkError:
        engine.close()
        raise
    return engine


def _open(
    network: Network,
    name: str,
    *,
    precision: str,
    threads: int,
    requests: int,
    on_progress: Callable[[str], None],
) -> tuple[Engine, str]:
    """Return an engine and its origin for the log, which is empty for a network compiled on the spot."""
    load = partial(open_backend, network, name, threads=threads, requests=requests)
    folder, target, entries, fault = cache_folder(), find_target(name), list[Entry](), ""
    if threads > 1 and target.device.is_gpu:
        LOG.warning("%s: threads: no effect on a GPU (%s)", network.name, target.device.label)
    try:
        entries = find_engines(folder, network, target, precision=precision)
    except (NetworkError, OSError) as error:  # others can write to the folder, or it cannot be read
        fault = str(error)
        LOG.warning("%s", fault)
    for entry in entries:
        try:
            built = read_engine(folder, entry)
            engine = load(precision=entry.key.precision, built=built)
        except NetworkError as error:
            reason = str(error) if entry.name in str(error) else f"engine {entry.name}: not loaded: {error}"
            LOG.warning("%s; stream-seg engines build rebuilds it", reason)
            continue
        return engine, f" built {entry.created:%Y-%m-%d} ({entry.accuracy})"
    if BACKENDS[name].compiler is not None:
        from stream_seg.engines.build import build_for_targets
        from stream_seg.engines.build_one import Reporter
        from stream_seg.engines.recipe import EngineRecipe

        def report_line(message: str) -> None:
            LOG.info("%s", message)
            on_progress(message)

        recipe = EngineRecipe(network=network.name, backend=name, precision=precision)
        reporter = Reporter(report_line, on_progress)
        try:
            result = build_for_targets(network, [target], recipe, folder=folder, report=reporter, must_store=False)
        except ConfigError as error:  # a precision that this backend lacks and the next one may have
            raise NetworkError(str(error)) from error
        if result.fault and not fault:
            LOG.warning("%s; the engine is not stored, and built again in the next run", result.fault)
        entry = result.entry
        engine = load(precision=entry.key.precision, built=result.engine)
        return engine, f" built now ({entry.accuracy})"
    engine, report = load(precision=precision), network.int8_report
    if engine.spec.info.precision != "int8":
        return engine, ""
    return engine, " not compared with f32" if report is None else f" ({summarize_report(report)})"
