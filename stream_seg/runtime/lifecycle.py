"""Start and end of a graph: one thread per stage, one link per arrow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from threading import Event, Lock
from types import TracebackType

from prometheus_client import CollectorRegistry
from typing_extensions import Self

from stream_seg.config.config import Config, Node
from stream_seg.config.outputs import paths_of
from stream_seg.errors import ConfigError, StreamSegError, explain_shortage
from stream_seg.files.writing import refuse_existing
from stream_seg.frame import EngineInfo
from stream_seg.runtime.histogram import Ages
from stream_seg.runtime.link_stats import LinkStats
from stream_seg.runtime.links import Links
from stream_seg.runtime.opencv import share_cores
from stream_seg.runtime.stopping import wait_for_stages
from stream_seg.runtime.watchdog import Watchdog
from stream_seg.runtime.worker import Worker
from stream_seg.stages.base import Context, Policy, bind, is_live, traits_of

LOG = logging.getLogger(__name__)
DRAIN_S = 1.0
"""Time that a stopped graph works on the frames under way before it drops them."""


class GraphLifecycle:
    """The stages and links of a config, from start to end. `error` is the first error of any stage.

    `announce` shows the user a line of a stage, such as the address of a page. `attended`: a person ends the run, so an
    output that people watch may stay after the last frame.
    """

    def __init__(
        self,
        config: Config,
        *,
        announce: Callable[[str], None] = lambda message: None,
        attended: bool = False,
    ) -> None:
        self.done, self._lock = Event(), Lock()
        self.stop_requested = Event()
        """Set, for example by a signal handler, to request the end of the run; whoever waits then calls `stop`."""
        self._entered = self._stopping = False
        self.error: StreamSegError | None = None
        self._notes: dict[str, None] = {}  # a dict keeps the order, and each line once
        self._truncated: list[str] = []  # files that lack the end of their stream
        self.registry = CollectorRegistry()
        """Metrics of this graph; stages may add their own."""
        self.policy: Policy = ("latest" if config.live else "every") if config.policy == "auto" else config.policy
        self._config, self._announce, self._attended = config, announce, attended
        self._links = Links()
        for node in config.nodes:
            for name in node.inputs:
                self._links.add(name, node.name, node.policy or self.policy)
        self.workers = [self._worker(node, config.streams(node.name)) for node in config.nodes]
        for worker in self.workers:
            self._refuse_existing(worker, worker.ages)
        self._connect_age_feedback()
        self._resources = ExitStack()
        self.watchdog = Watchdog(lambda: self.workers, stall_s=config.watchdog.stall_s)
        self._source_error: StreamSegError | None = None  # of a source that was added to the running graph
        self._running = len(self.workers)
        self._outputs = sum(worker.is_output for worker in self.workers)
        self.started_ns = time.monotonic_ns()

    @property
    def link_stats(self) -> list[LinkStats]:
        """Counters of every link."""
        return self._links.stats

    @property
    def all_link_stats(self) -> list[LinkStats]:
        """Counters of every link, including those of removed sources."""
        return self._links.all_stats

    @property
    def notes(self) -> list[str]:
        """Lines that stages added to the report."""
        return list(self._notes)

    def engines(self) -> dict[str, EngineInfo | None]:
        """Return the engine of each stage that adds labels, by stage name; None before its first frame."""
        return {w.node.name: w.labels.engine for w in self.workers if "labels" in w.traits.produces}

    def __enter__(self) -> Self:
        if self._entered:
            raise ConfigError("a graph runs once; make another one")
        self._entered = True
        self._resources.enter_context(share_cores(len(self.workers)))
        try:
            self._start()
        except BaseException as error:
            self._clean_up()
            if shortage := explain_shortage(error):
                raise StreamSegError(f"cannot start {len(self.workers)} stages: {shortage}") from error
            raise
        return self

    def _start(self) -> None:
        self._links.open()
        for worker in self.workers:
            self._links.bind(worker.receiver, worker.node.name)
        self._links.start()
        for worker in reversed(self.workers):  # outputs first: one that cannot write fails before a camera is opened
            worker.thread.start()
        self.watchdog.start()

    def _clean_up(self) -> None:
        """End the part of a graph that has started, if another part cannot start."""
        self._end_stages()
        self._resources.close()
        for worker in self.workers:
            if worker.thread.ident is None:
                worker.receiver.close()
                self.on_end(worker)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.wait(DRAIN_S)
        self._end_stages()
        self._resources.close()
        if self.error is not None and self._truncated:
            self.error.args = (f"{self.error}; truncated: {', '.join(self._truncated)}",)

    def _end_stages(self) -> None:
        """Drop the frames under way, and wait for the stages: outputs finish their files."""
        self._stopping = True
        for worker in self.workers:
            worker.receiver.abort()
        self._links.end()  # on behalf of a stage that hangs: the outputs behind it finish their files
        wait_for_stages(self.workers)
        self._links.stop(DRAIN_S / 2)
        self.watchdog.stop()

    def stalls(self) -> list[str]:
        """Return a line for each stage that makes no progress now."""
        return [str(stall) for stall in self.watchdog.stalls.values()]

    def abandoned(self) -> list[Worker]:
        """Return the stages that hang after the end of the graph.

        A stage that still loads, or that waits for a time-out of its own, may be left behind; an output that has begun
        may not.
        """
        return [
            worker
            for worker in self.hanging()
            if worker.node.name in self.watchdog.stalls
            or not worker.activity.excused
            or (worker.is_output and worker.activity.state != "loading")
        ]

    def hanging(self) -> list[Worker]:
        """Return the stages whose threads have not ended."""
        return [worker for worker in self.workers if worker.thread.is_alive()]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every output has ended. Return False if the time runs out before."""
        return self.done.wait(timeout_s)

    def ending(self) -> bool:
        """Return whether the run has ended or is about to."""
        return self.done.is_set() or self.stop_requested.is_set() or self._stopping

    def stop(self) -> None:
        """End the sources. Frames under way are still processed, and files are finished."""
        self._stopping = True
        self._end(worker for worker in self.workers if worker.is_source)

    def fail(self, error: StreamSegError) -> None:
        """Record the first error, and stop."""
        with self._lock:
            self.error = self.error or error
        self.stop()

    def on_failure(self, worker: Worker, error: StreamSegError) -> None:
        """Stop because a stage failed. A removed source, or one added to the running graph, does not stop the run."""
        if worker not in self.workers:
            LOG.warning("%s, which was removed: %s", worker.node.name, error)
        elif worker.added:
            LOG.error("%s failed: %s", worker.node.name, error)
            self._source_error = error
        else:
            self.fail(error)

    def on_end(self, worker: Worker) -> None:
        """End the run with its last output, and close the links with its last stage."""
        with self._lock:
            self._running -= 1
            self._outputs -= worker.is_output
            if not self._outputs:
                if all(worker.failed for worker in self.workers if worker.is_source):
                    self.error = self.error or self._source_error
                self.done.set()
        if not self._running:
            self._links.close()

    def _connect_age_feedback(self) -> None:
        """Connect the outputs to the stages that want the ages of finished frames."""
        queues = {w.node.name: w.age_feedback for w in self.workers if w.age_feedback is not None}
        for worker in self.workers:
            worker.age_listeners = queues if worker.is_output else {}

    def _refuse_existing(self, worker: Worker, streams: Iterable[str]) -> None:
        if worker.is_output:
            for path in paths_of(worker.stage, streams):
                refuse_existing(path, overwrite=self._config.overwrite)

    def _end(self, sources: Iterable[Worker]) -> None:
        for source in sources:
            for sender in source.senders:
                sender.end()

    def _is_live(self, stream: str) -> bool:
        """Return whether a stream comes from a live source."""
        return any(is_live(source.node.stage) for source in self._sources_of(stream))

    def _has_ended(self, stream: str) -> bool:
        """Return whether the source of a stream has ended."""
        return any(source.source.state == "ended" for source in self._sources_of(stream))

    def _is_complete(self, stream: str, seq: int) -> bool:
        """Return whether `seq` is the number of the last frame of a stream; True for that of a removed source."""
        return all(
            (source.exhausted or source.failed) and source.last is not None and source.last.seq == seq
            for source in self._sources_of(stream)
        )

    def _sources_of(self, stream: str) -> Iterator[Worker]:
        return (worker for worker in self.workers if worker.is_source and stream in worker.ages)

    def _worker(self, node: Node, streams: Iterable[str], *, running: bool = False) -> Worker:
        ages = {stream: Ages(self._config.deadline_ms) for stream in streams}
        senders = [link.sender for link in self._links.of(node.name)]
        worker = Worker(node, self._links.receiver(node.name), senders, self, ages=ages)
        context = Context(
            name=node.name,
            policy=node.policy or self.policy,
            other_sources=running or len(self._config.sources) > 1,
            running=running,
            recorded=not self._config.live,
            only_watched=all(traits_of(output.stage).watched for output in self._config.outputs),
            attended=self._attended,
            overwrite=self._config.overwrite,
            restricted=self._config.restricted,
            ready=worker.receiver.ready,
            begin=worker.begin,
            stopping=self.ending,
            live=self._is_live,
            ended=self._has_ended,
            complete=self._is_complete,
            fail=self.fail,
            failed=lambda: self.error is not None,
            truncated=self._truncated.append,
            note=self._notes.setdefault,
            streams=worker.streams,
            announce=self._announce,
            busy=worker.activity.expect,
            stalls=self.stalls,
            registry=self.registry,
        )
        worker.stage = bind(node.stage, context)
        return worker
