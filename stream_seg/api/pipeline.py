"""A graph with its metrics, its traces and its report."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from os import fspath
from pathlib import Path

from stream_seg.api.arguments import Document, PathText
from stream_seg.api.tap import Tap
from stream_seg.config.config import Config
from stream_seg.config.graph_file import apply_settings, check, read_document
from stream_seg.config.outputs import refuse_overwriting
from stream_seg.config.overrides import total_frames
from stream_seg.errors import ConfigError, StageError, StreamSegError
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.report import Report
from stream_seg.schema.validation import describe_unknown
from stream_seg.stages.registry import StageLoader
from stream_seg.telemetry.metrics import register
from stream_seg.telemetry.server import serve_metrics

_RUNNING: set[Pipeline] = set()


@atexit.register
def _close_all() -> None:
    """Close abandoned pipelines: foreign code in their threads would crash when the interpreter ends."""
    for pipeline in tuple(_RUNNING):
        pipeline.close()


class Pipeline:
    """A graph: its frames, its metrics, its report. `with Pipeline("graph.yaml") as pipeline: pipeline.wait()`.

    `graph` is the path of a graph file, a mapping with the same keys (in which `stage:` may also be a class), or a
    checked Config. `settings` are changes such as "smooth.weight=0.6". `frames` names the stage whose frames iteration
    yields; they must then be consumed, since a recording waits for them. `announce` receives lines for the user, such
    as the address of a page. `attended`: a person ends the run, so a page or window may stay after the last frame.

    Raises ConfigError, SourceError or OutputError for a graph that cannot run, before anything is started.
    """

    def __init__(
        self,
        graph: PathText | Document | Config,
        *,
        settings: Sequence[str] = (),
        frames: str | None = None,
        announce: Callable[[str], None] = lambda message: None,
        attended: bool = False,
    ) -> None:
        self.config = graph if isinstance(graph, Config) else _read(graph, settings, frames)
        self.total_frames = total_frames(self.config)
        """Number of frames that the sources will yield; None if unknown."""
        self.graph = Graph(self.config, announce=announce, attended=attended)
        register(self.graph)
        self._announce = announce
        self._resources = ExitStack()
        self._started = False
        self._ended_ns: int | None = None

    def start(self) -> None:
        """Start the metrics server and the stages; `close` follows. Raises ConfigError or OutputError."""
        if self._started:
            raise ConfigError("a pipeline runs once; make another one")
        self._started = True
        with ExitStack() as resources:
            if (metrics := self.config.metrics) is not None:
                url = resources.enter_context(serve_metrics(self.graph, metrics))
                self._announce(f"metrics at {url}")
            if (traces := self.config.traces) is not None:
                from stream_seg.telemetry.tracing import trace_frames  # its package is heavy and optional

                resources.enter_context(trace_frames(self.graph, traces, deadline_ms=self.config.deadline_ms))
            resources.enter_context(self.graph)
            self._resources = resources.pop_all()
        _RUNNING.add(self)

    def close(self) -> None:
        """Stop the stages, finish the files and close everything. Raises nothing: see `error`."""
        _RUNNING.discard(self)
        self.end_iterations()
        self._resources.close()
        abandoned = [f"{worker.node.name} ({worker.activity})" for worker in self.graph.abandoned()]
        if abandoned:
            self.graph.fail(StageError(f"gave up on {', '.join(abandoned)}, which did not end"))
        self._ended_ns = self._ended_ns or time.monotonic_ns()

    @property
    def error(self) -> StreamSegError | None:
        """The first error of any stage."""
        return self.graph.error

    def __enter__(self) -> Pipeline:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; after a body without an exception, raise the first error of any stage."""
        self.close()
        if kind is None and self.error is not None:
            raise self.error

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames of the stage `frames` until the graph ends. Raises the first error of any stage."""
        taps = self._taps()
        if not taps:
            ends = ", ".join(dict.fromkeys(name for node in self.config.outputs for name in node.inputs))
            raise ConfigError(f"the pipeline yields no frames; name a stage, such as Pipeline(..., frames={ends!r})")
        if not self._started:
            raise ConfigError("the pipeline is not running: use it as a context manager")
        yield from taps[0]
        if self.error is not None:
            raise self.error

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every output has ended. Return False if the time runs out before.

        Raises ConfigError if nothing would end: the pipeline is not running, or nobody has asked for its frames.
        """
        if not self._started or (timeout_s is None and any(not tap.requested for tap in self._taps())):
            raise ConfigError("the pipeline does not run to an end by itself: start it, and iterate over its frames")
        return self.graph.wait(timeout_s)

    def stop(self) -> None:
        """End the sources; frames under way are still processed. Callable from any thread."""
        self.graph.stop()

    def end_iterations(self) -> None:
        """End every iteration over the frames, also one that waits for a frame. Callable from any thread."""
        for tap in self._taps():
            tap.close()

    def metrics(self) -> dict[str, float]:
        """Return the current value of every metric, by its name and labels as Prometheus writes them."""
        samples = (sample for family in self.graph.registry.collect() for sample in family.samples)
        return {_series(sample.name, sample.labels): sample.value for sample in samples}

    def report(self) -> Report:
        """Return the figures of the run, or of the run so far."""
        ended_ns = self._ended_ns or time.monotonic_ns()
        return Report.of(self.graph, seconds=(ended_ns - self.graph.started_ns) / 1e9)

    def _taps(self) -> list[Tap]:
        return [worker.stage for worker in self.graph.workers if isinstance(worker.stage, Tap)]


def check_config(document: Document, *, where: str, loader: StageLoader, report_file: Path | None = None) -> Config:
    """Return the config of a document. Raises ConfigError, and OutputError for an output that would overwrite."""
    config = check(document, where=where, loader=loader)
    refuse_overwriting(config, report_file=report_file, inputs=[Path(where)])
    return config


def _read(graph: PathText | Document, settings: Sequence[str], frames: str | None) -> Config:
    """Return the config of a graph file or mapping, with an output for the frames of the stage `frames`."""
    where, loader = "graph", StageLoader()
    if isinstance(graph, Mapping):
        document = dict(graph)
    else:
        where, loader = fspath(graph), StageLoader(Path(graph).parent)
        document = read_document(Path(graph))
    document = apply_settings(document, settings)
    if frames is not None:
        stages = document.get("stages")
        names = [*stages] if isinstance(stages, Mapping) else []
        if frames not in names:
            raise ConfigError(f"{where}: frames: {describe_unknown('stage', frames, names)}")
        name = next(name for number in count() if (name := "frames" + "_" * number) not in names)
        document["stages"] = {**document["stages"], name: {"stage": Tap, "input": frames}}
    return check_config(document, where=where, loader=loader)


def _series(name: str, labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{pairs}}}" if pairs else name
