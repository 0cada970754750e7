"""A running graph, whose sources may change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from threading import Thread

from stream_seg.config.config import Config, Node
from stream_seg.errors import ConfigError
from stream_seg.files.templates import STREAM
from stream_seg.runtime.counters import SourceTotals
from stream_seg.runtime.lifecycle import GraphLifecycle
from stream_seg.runtime.worker import Worker
from stream_seg.sources.timeline import Continuation, StreamEnd
from stream_seg.stages.base import stream_of

LOG = logging.getLogger(__name__)
REMOVE_S = 6.0
"""Time that a removed source may take to end: a read may take as long as its time-out."""
POLL_S = 0.05
"""Interval at which the end of the run is checked, while a removed source is waited for."""


class Graph(GraphLifecycle):
    """A running config: `with Graph(config) as graph: graph.wait()`. Its sources may be added and removed."""

    def __init__(
        self,
        config: Config,
        *,
        announce: Callable[[str], None] = lambda message: None,
        attended: bool = False,
    ) -> None:
        super().__init__(config, announce=announce, attended=attended)
        self._additions = count()
        self._removed: dict[str, SourceTotals] = {}
        self._stream_ends: dict[str, StreamEnd] = {}  # by stream, of removed sources

    @property
    def removed(self) -> list[SourceTotals]:
        """Counters of the removed sources that no source of the same name has replaced."""
        return list(self._removed.values())

    def add(self, node: Node, *, into: Sequence[str]) -> None:
        """Start another source, whose frames go to the stages `into`. Its failure does not end the run.

        A source with the name of a removed one continues its counts. Raises ConfigError if the run is ending, and
        OutputError if an output would replace a file with the stream.
        """
        self.refuse_existing(node, into=into)
        receivers = [worker for worker in self.workers if worker.node.name in into]
        if self.ending() or any(worker.receiver.ended and not worker.receiver.keep_open for worker in receivers):
            raise ConfigError(f"{node.name}: cannot be added, the run is ending")
        links = [self._links.add(node.name, w.node.name, w.node.policy or self.policy) for w in receivers]
        source = self._worker(node, [stream_of(node.stage, node.name)], running=True)
        source.added = True
        if node.name in self._removed:
            source.resume(self._removed.pop(node.name))
        ends = (self._stream_ends.get(stream) for stream in source.ages)
        source.resumed = next((Continuation(end) for end in ends if end is not None), None)
        for worker in self._downstream(into):
            for stream in source.ages:
                worker.add_stream(stream, deadline_ms=self._config.deadline_ms)
        with self._lock:
            self._running += 1
        # Nothing is sent to a source; ZeroMQ frees the endpoint of a removed one of the same name only later.
        self._links.bind(source.receiver, f"{node.name}/{next(self._additions)}")
        for link, worker in zip(links, receivers, strict=True):
            worker.receiver.admit(link.stats)
        self._links.start(links)
        self.workers = [*self.workers, source]
        if self.ending():  # since the check above: `stop` may have missed this source
            self._end((source,))
        source.thread.start()

    def refuse_existing(self, node: Node, *, into: Sequence[str]) -> None:
        """Raise OutputError if an output would replace a file with the stream of a source that is to be added.

        A stream that an output knows already, or a path that all streams share, is a file of this run.
        """
        stream = stream_of(node.stage, node.name)
        for worker in self._downstream(into):
            if not worker.knows_stream(stream) and STREAM in str(getattr(worker.stage, "path", "")):
                self._refuse_existing(worker, [stream])

    def remove(self, *names: str, timeout_s: float = REMOVE_S) -> None:
        """End sources. Their frames under way are still processed, and their metrics disappear.

        A source that does not end within `timeout_s`, or before the run ends, is abandoned with its thread. Raises
        ConfigError if no source would remain.
        """
        sources = [self._source(name) for name in names]
        fed = {link.end for name in names for link in self._links.of(name)}
        if not any(worker.is_source and worker not in sources for worker in self.workers) and not all(
            worker.receiver.keep_open for worker in self.workers if worker.node.name in fed
        ):
            raise ConfigError(f"{', '.join(names)}: is the only source; end the run instead")
        self._end(sources)
        self.workers = [worker for worker in self.workers if worker not in sources]
        links = [link for name in names for link in self._links.detach(name)]
        streams = {stream for source in sources for stream in source.ages}
        for worker in self.workers:
            worker.remove_streams(streams)
        self._join([*(source.thread for source in sources), *self._links.threads(links)], timeout_s)
        self._links.discard(links)
        for source in sources:
            self._removed[source.node.name] = source.totals()
            self._stream_ends.update({stream: end for stream in source.ages if (end := source.end())})
            if source.thread.is_alive():
                LOG.warning("%s: has not ended within %g s; its thread is abandoned", source.node.name, timeout_s)

    def _source(self, name: str) -> Worker:
        source = next((worker for worker in self.workers if worker.node.name == name and worker.is_source), None)
        if source is None:
            known = ", ".join(worker.node.name for worker in self.workers if worker.is_source)
            raise ConfigError(f"{name}: no such source; there are {known}")
        return source

    def _join(self, threads: Iterable[Thread], timeout_s: float) -> None:
        """Wait up to `timeout_s` for all threads together, and no longer than the run goes on."""
        end_s = time.monotonic() + timeout_s
        for thread in threads:
            while thread.is_alive() and (remaining_s := end_s - time.monotonic()) > 0 and not self.ending():
                thread.join(min(remaining_s, POLL_S))

    def _downstream(self, names: Sequence[str]) -> list[Worker]:
        """Return the stages with these names and all stages behind them."""
        reached = set(names)
        for node in self._config.nodes:  # every node follows its inputs
            if reached.intersection(node.inputs):
                reached.add(node.name)
        return [worker for worker in self.workers if worker.node.name in reached]
