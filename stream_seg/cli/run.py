"""The main job: run a graph from start to end, with progress, signals and a report."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

from stream_seg.api.pipeline import Pipeline, check_config
from stream_seg.cli.console import STDOUT, error_console, print_error_line
from stream_seg.cli.guard import guard_process, raise_file_limit
from stream_seg.cli.malloc import limit_heaps
from stream_seg.cli.progress import progress
from stream_seg.cli.report import print_report, write_json
from stream_seg.config.config import Config
from stream_seg.config.outputs import output_paths
from stream_seg.errors import OutputError, StreamSegError
from stream_seg.files.writing import refuse_existing
from stream_seg.runtime.reload import reloader
from stream_seg.runtime.signals import StopSignals
from stream_seg.runtime.systemd import notify_systemd
from stream_seg.stages.registry import StageLoader

LOG = logging.getLogger(__name__)
POLL_S = 0.1
"""Interval at which the main thread checks the graph and the signals."""


def run(
    read: Callable[[], Mapping[str, Any]],
    *,
    where: str,
    loader: StageLoader,
    note: str = "",
    report_file: Path | None = None,
    quiet: bool = False,
    reloadable: bool = False,
    signals: StopSignals | None = None,
) -> None:
    """Run the graph document that `read` returns to its end, and print its report.

    A `reloadable` graph takes its sources from `read` again at SIGHUP. `note` is a line for the user. `signals` handles
    SIGINT and SIGTERM already. Raises the first StreamSegError of any stage, after the files are finished and the
    report is written.
    """

    def read_config() -> Config:
        return check_config(read(), where=where, loader=loader, report_file=file)

    limit_heaps()
    file = None if report_file == STDOUT else report_file
    config = read_config()
    if file is not None:
        refuse_existing(file, overwrite=config.overwrite)
    loader.close()
    before = {path: _identity(path) for _, path in output_paths(config)}
    pipeline = Pipeline(
        config,
        announce=print_error_line if not quiet else lambda message: None,
        attended=report_file is None,  # a run that reports is part of a batch
    )
    graph = pipeline.graph
    raise_file_limit(len(graph.workers) + len(graph.link_stats))
    with ExitStack() as resources:
        signals = signals or resources.enter_context(StopSignals())
        signals.stop_with(graph.stop_requested)
        resources.enter_context(guard_process(config.watchdog.freeze_s, alive=lambda: not graph.watchdog.blocked))
        pipeline.start()
        notify_systemd("READY=1")
        if note and not quiet:
            print_error_line(note)
        try:
            apply = reloader(graph, config, read_config) if reloadable else None
            with _on_hangup(apply) as reload_if_requested:
                _watch(pipeline, quiet=quiet, each=reload_if_requested)
        finally:
            notify_systemd("STOPPING=1")
            pipeline.close()
        report = pipeline.report()
        if report_file is not None:
            write_json(report.to_dict(), report_file, overwrite=config.overwrite)
        if not quiet and report_file != STDOUT and any(report.frames.by_output.values()):
            changed = [str(path) for path, identity in before.items() if _identity(path) not in (None, identity)]
            with suppress(*(OSError, SystemExit) if pipeline.error is not None else ()):  # of standard output
                print_report(report)
                if changed and not isinstance(pipeline.error, OutputError):
                    print(f"\nwritten: {', '.join(changed)}")
    if pipeline.error is not None:
        raise pipeline.error
    if hanging := graph.hanging():
        print(f"did not wait for {', '.join(worker.node.name for worker in hanging)}", file=sys.stderr)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return a value that changes when a file is replaced or a folder gets a new entry; None if nothing is there."""
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _watch(pipeline: Pipeline, *, quiet: bool, each: Callable[[], None]) -> None:
    """Show progress until the graph ends or a signal arrives; call `each` at every check."""
    graph = pipeline.graph
    outputs = [worker for worker in graph.workers if worker.is_output]
    ended = False  # outputs that stay after the last frame make no progress
    with progress(error_console(), pipeline.total_frames, unit="frames", quiet=quiet) as update:
        while not graph.wait(POLL_S) and not graph.stop_requested.is_set():
            if not ended:
                ended = all(worker.finishing for worker in outputs)
                slowest = min(outputs, key=lambda worker: worker.images)
                update(slowest.images, f"{slowest.fps():.1f} fps")
            each()
    if graph.stop_requested.is_set() and not quiet:
        print_error_line("stopping; a second signal ends at once")


@contextmanager
def _on_hangup(apply: Callable[[], None] | None) -> Iterator[Callable[[], None]]:
    """Yield a function that calls `apply` if SIGHUP arrived since its last call. None: keep the signal's default."""
    if apply is None:
        yield lambda: None
        return
    requested = Event()

    def reload_if_requested() -> None:
        if not requested.is_set():
            return
        requested.clear()
        try:
            apply()
        except StreamSegError as error:
            LOG.error("the graph file is not reloaded: %s", error)
        else:
            LOG.info("the graph file is reloaded")

    before = signal.signal(signal.SIGHUP, lambda *_: requested.set())
    try:
        yield reload_if_requested
    finally:
        signal.signal(signal.SIGHUP, before)
