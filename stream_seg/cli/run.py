"""The main job: a graph from start to end, watched, stopped by signals, and reported."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console

from stream_seg.cli.progress import progress
from stream_seg.cli.report import report, show, write_json
from stream_seg.config.graph_file import Config, MetricsConfig, check
from stream_seg.config.overrides import is_live, outputs_of, refuse_overwriting, total_frames
from stream_seg.errors import OutputError, StreamSegError
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.reload import reloader
from stream_seg.runtime.signals import heard
from stream_seg.stages.serve import Serve
from stream_seg.telemetry.metrics import Metrics, serving
from stream_seg.web.hosts import in_address

LOG = logging.getLogger(__name__)
M_ARENA_MAX = -8  # of glibc's malloc.h
GLANCE_S = 0.1
"""How often the main thread looks at the graph and at the signals."""


def run(
    document: Mapping[str, Any],
    *,
    where: str,
    report_file: Path | None = None,
    quiet: bool = False,
    again: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Check a graph document and run it to its end. Raises the first StreamSegError of any stage, after the files are
    finished and the report is written. At SIGHUP the sources become those of the document that `again` gives."""
    _share_heaps()
    config = _checked(lambda: document, where, report_file)
    total = total_frames(config)
    before = {path: _identity(path) for _, path in outputs_of(document)}
    errors = Console(stderr=True, markup=False)
    graph = Graph(config, live=is_live(config))
    _shown_on_pages(graph, errors, quiet=quiet)
    with heard(graph.asked):
        with _metrics(graph, config.metrics) as address, _traces(graph, config), graph:
            if address and not quiet:
                errors.print(f"metrics at {address}", highlight=False)
            take_over = reloader(graph, config, partial(_checked, again, where, report_file)) if again else None
            with _hang_up(take_over) as hear:
                _watch(graph, errors, total=total, quiet=quiet, hear=hear)
        unfinished = [task.node.name for task in graph.hanging() if task.is_sink]
        if unfinished:
            graph.fail(OutputError(f"gave up on {', '.join(unfinished)}, which did not finish"))
        facts = report(graph, seconds=(time.monotonic_ns() - graph.started_ns) / 1e9)
    if report_file is not None:
        write_json(facts, report_file)
    given = facts["frames"]["by_output"]
    if not quiet and any(given.values()):
        show(facts, Console(markup=False))
        kept = [str(path) for path, old in before.items() if _identity(path) not in (None, old)]
        if kept and not isinstance(graph.error, OutputError):
            print(f"\nwritten: {', '.join(kept)}")
    if graph.error is not None:
        raise graph.error
    if graph.hanging():
        print(f"did not wait for {', '.join(task.node.name for task in graph.hanging())}", file=sys.stderr)


def _checked(read: Callable[[], Mapping[str, Any]], where: str, report_file: Path | None) -> Config:
    """The config of the document that `read` gives, which overwrites no input. Raises StreamSegError."""
    document = read()
    config = check(document, where=where)
    refuse_overwriting(document, report_file)
    return config


def _identity(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced, or something put into a folder; None where nothing is there."""
    with suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _share_heaps() -> None:
    """Let all threads share two heaps. glibc gives a new thread one of its own, and a camera that is opened again and
    again, each time by a new thread, would leave 4.5 MB a minute behind. Elsewhere than on glibc this does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)


def _watch(graph: Graph, console: Console, *, total: int | None, quiet: bool, hear: Callable[[], None]) -> None:
    sinks = [task for task in graph.tasks if task.is_sink]
    with progress(console, total, unit="frames", quiet=quiet) as update:
        while not graph.wait(GLANCE_S) and not graph.asked.is_set():
            slowest = min(sinks, key=lambda task: task.pictures)
            update(slowest.pictures, f"{slowest.fps():.1f} fps")
            hear()
    if graph.asked.is_set() and not quiet:
        console.print("stopping; a second signal ends at once", highlight=False)


def _shown_on_pages(graph: Graph, console: Console, *, quiet: bool) -> None:
    """Give the graph's metrics to its pages and the streams that reach them; they say where they are."""
    for task, page in [(task, task.node.stage) for task in graph.tasks if isinstance(task.node.stage, Serve)]:
        page.registry = Metrics(graph).registry
        page.streams = task.streams
        page.stopping = graph.ending
        if not quiet:
            page.announce = lambda address: console.print(f"page at {address}", highlight=False)


@contextmanager
def _metrics(graph: Graph, config: MetricsConfig | None) -> Iterator[str | None]:
    """The address at which the metrics are served; None where the config asks for none."""
    if config is None:
        yield None
        return
    with serving(graph, host=config.host, port=config.port) as port:
        yield f"http://{in_address(config.host)}:{port}/metrics"


@contextmanager
def _traces(graph: Graph, config: Config) -> Iterator[None]:
    """Nothing where the config asks for no traces: their package is heavy, and need not be there."""
    if config.traces is None:
        yield
        return
    from stream_seg.telemetry.tracing import tracing

    with tracing(graph, config.traces, deadline_ms=config.deadline_ms):
        yield


@contextmanager
def _hang_up(take_over: Callable[[], None] | None) -> Iterator[Callable[[], None]]:
    """What does `take_over` if SIGHUP came since it was last called; without one that signal keeps its meaning."""
    if take_over is None:
        yield lambda: None
        return
    came = Event()

    def hear() -> None:
        if not came.is_set():
            return
        came.clear()
        try:
            take_over()
        except StreamSegError as error:
            LOG.error("the graph file is not taken over: %s", error)
        else:
            LOG.info("the graph file is taken over")

    before = signal.signal(signal.SIGHUP, lambda *_: came.set())
    try:
        yield hear
    finally:
        signal.signal(signal.SIGHUP, before)
