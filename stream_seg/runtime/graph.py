"""The stages and links of one config, running: a thread per stage, a link per arrow."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, cast

from stream_seg.config.graph_file import Config, Node
from stream_seg.errors import ConfigError, StreamSegError
from stream_seg.frame import Age, EngineInfo
from stream_seg.runtime.handover import End, GoingOn, Left
from stream_seg.runtime.histogram import Ages
from stream_seg.runtime.link_stats import Link
from stream_seg.runtime.links import Wires
from stream_seg.runtime.worker import Task
from stream_seg.stages.base import Policy
from stream_seg.stages.capture import Capture
from stream_seg.stages.registry import SOURCES

LOG = logging.getLogger(__name__)
DRAIN_S = 1.0
"""How long a stopped graph works on the frames under way before it gives them up."""
FINISH_S = 30.0
"""How long a stopped graph waits for outputs that finish their files: the index of an hour's mp4 goes to its front."""
REMOVE_S = 6.0
"""How long a source that is removed may take to end: a read from it may take as long as its timeout."""
GLANCE_S = 0.05
"""How often it is looked whether the run is to end, while a source that was removed is waited for."""
FINISH_FRAME_S = 0.25
"""How long a stopped graph waits for the one frame that a stage is at."""

EARSHOT = 1024
"""How many ages a stage keeps that takes no frame meanwhile."""


class Graph:
    """A running config. `with Graph(config, live=...) as graph: graph.wait()`; `error` is the first of any stage."""

    def __init__(self, config: Config, *, live: bool) -> None:
        self.done, self._lock = Event(), Lock()
        self.asked = Event()
        """To end, by whom it may not keep waiting: set from a signal handler, say. `stop` follows."""
        self._stopping = False
        self.error: StreamSegError | None = None
        self.policy: Policy = ("latest" if live else "every") if config.policy == "auto" else config.policy
        self._wires = Wires()
        for node in config.nodes:
            for name in node.inputs:
                self._wires.lay(name, node.name, node.policy or self.policy)
        self._deadline_ms = config.deadline_ms
        alone = sum(node.kind in SOURCES for node in config.nodes) < 2
        self.tasks = [
            self._task(node if alone else _beside_others(node, running=False), _streams(node.name, config.nodes))
            for node in config.nodes
        ]
        self._connect_ages()
        self._nodes = config.nodes
        self._additions = count()
        self._removed: dict[str, Left] = {}
        self._ends: dict[str, End] = {}  # by stream, of sources that were removed
        self._trouble: StreamSegError | None = None
        self._running = len(self.tasks)
        self._outputs = sum(task.is_sink for task in self.tasks)
        self.started_ns = time.monotonic_ns()

    @property
    def links(self) -> list[Link]:
        """Every arrow of the graph."""
        return self._wires.links

    @property
    def books(self) -> list[Link]:
        """Every arrow that there is, and that there was."""
        return self._wires.books

    @property
    def removed(self) -> list[Left]:
        """What is left of the sources that were removed, and of which none of the name came back."""
        return list(self._removed.values())

    def engines(self) -> dict[str, EngineInfo | None]:
        """By segment stage, what computes there; None before its first frame."""
        return {task.node.name: task.segment.engine for task in self.tasks if task.node.kind == "segment"}

    def __enter__(self) -> Graph:
        self._wires.open()
        for task in self.tasks:
            self._wires.bind(task.receiver, task.node.name)
        self._wires.start()
        for task in reversed(self.tasks):  # outputs first: who cannot write says so before a camera is opened
            task.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.wait(DRAIN_S)
        for task in self.tasks:
            task.receiver.abort()
        self._wires.end()  # in the place of a stage that hangs: the outputs behind it are to finish their files
        for task in self.tasks:
            task.thread.join(FINISH_FRAME_S)
            if task.is_sink and task.finishing:
                task.thread.join(FINISH_S)
        self._wires.stop(DRAIN_S / 2)

    def hanging(self) -> list[Task]:
        """The stages that have not ended."""
        return [task for task in self.tasks if task.thread.is_alive()]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every output has ended, after which nothing can come; False where the time ran out before."""
        return self.done.wait(timeout_s)

    def ending(self) -> bool:
        """Whether the run is over, or is to be."""
        return self.done.is_set() or self.asked.is_set() or self._stopping

    def stop(self) -> None:
        """End the sources: what is under way is still worked on, and files are finished."""
        self._stopping = True
        self._end(task for task in self.tasks if task.is_source)

    def fail(self, error: StreamSegError) -> None:
        """Note the first error, and stop."""
        with self._lock:
            self.error = self.error or error
        self.stop()

    def failed(self, task: Task, error: StreamSegError) -> None:
        """A stage has failed, which ends the run; not so a source that was added while another is left, or removed."""
        if task not in self.tasks:
            LOG.warning("%s, which was removed: %s", task.node.name, error)
        elif task.added:
            LOG.error("%s failed: %s", task.node.name, error)
            self._trouble = error
        else:
            self.fail(error)

    def ended(self, task: Task) -> None:
        """A stage has ended; with the last output, the run; with the last stage of all, the sockets."""
        with self._lock:
            self._running -= 1
            self._outputs -= task.is_sink
            if not self._outputs:
                if all(task.failed for task in self.tasks if task.is_source):
                    self.error = self.error or self._trouble
                self.done.set()
        if not self._running:
            self._wires.close()

    def _connect_ages(self) -> None:
        """Outputs tell the segment stages how old frames are; it travels on with the frames, as `Frame.ages`."""
        ears = {task.node.name: deque[Age](maxlen=EARSHOT) for task in self.tasks if task.node.kind == "segment"}
        for task in self.tasks:
            task.heard, task.tell = ears.get(task.node.name), ears if task.is_sink else {}

    def add(self, node: Node, *, into: Sequence[str]) -> None:
        """Start one more source, whose frames go to the stages `into`, and whose trouble is its own. One of a removed
        source's name counts on from where that left off. Raises ConfigError where the run is ending."""
        receivers = [task for task in self.tasks if task.node.name in into]
        if self.ending() or any(task.receiver.ended and not task.receiver.kept for task in receivers):
            raise ConfigError(f"{node.name}: cannot be added, the run is ending")
        wires = [self._wires.lay(node.name, task.node.name, task.node.policy or self.policy) for task in receivers]
        source = self._task(_beside_others(node, running=True), _streams(node.name, (node,)))
        source.added = True
        if node.name in self._removed:
            source.carry_on(self._removed.pop(node.name))
        source.going_on = next((GoingOn(self._ends[stream]) for stream in source.ages if stream in self._ends), None)
        for task in self._downstream(into):
            for stream in source.ages:
                task.take_in(stream, deadline_ms=self._deadline_ms)
        with self._lock:
            self._running += 1
        # Nobody sends to a source; ZeroMQ gives the name that a removed one had free only later.
        self._wires.bind(source.receiver, f"{node.name}/{next(self._additions)}")
        for wire, task in zip(wires, receivers, strict=True):
            task.receiver.admit(wire.link)
        self._wires.start(wires)
        self.tasks = [*self.tasks, source]
        if self.ending():  # since it was looked at: `stop` may have missed this one
            self._end((source,))
        source.thread.start()

    def remove(self, *names: str, timeout_s: float = REMOVE_S) -> None:
        """End sources; what they gave is still worked on, and their series vanish. The threads of those that do not end
        in time, or before the run is to end, are left behind. Raises ConfigError where none would be left."""
        going = [self._source(name) for name in names]
        fed = {wire.end for name in names for wire in self._wires.of(name)}
        if not any(task.is_source and task not in going for task in self.tasks) and not all(
            task.receiver.kept for task in self.tasks if task.node.name in fed
        ):
            raise ConfigError(f"{', '.join(names)}: is the only source; end the run instead")
        self._end(going)
        self.tasks = [task for task in self.tasks if task not in going]
        wires = [wire for name in names for wire in self._wires.take_up(name)]
        gone = {stream for source in going for stream in source.ages}
        for task in self.tasks:
            task.forget(gone)
        self._await([*(source.thread for source in going), *self._wires.threads(wires)], timeout_s)
        self._wires.finish(wires)
        for source in going:
            self._removed[source.node.name] = source.left()
            self._ends.update({stream: end for stream in source.ages if (end := source.end())})
            if source.thread.is_alive():
                LOG.warning("%s: has not ended within %g s; its thread is left behind", source.node.name, timeout_s)

    def _source(self, name: str) -> Task:
        source = next((task for task in self.tasks if task.node.name == name and task.is_source), None)
        if source is None:
            known = ", ".join(task.node.name for task in self.tasks if task.is_source)
            raise ConfigError(f"{name}: no such source; there are {known}")
        return source

    def _end(self, sources: Iterable[Task]) -> None:
        for source in sources:
            for sender in source.senders:
                sender.end()

    def _await(self, threads: Iterable[Thread], timeout_s: float) -> None:
        """Wait so long for all of them together, and no longer than the run is to go on."""
        end_s = time.monotonic() + timeout_s
        for thread in threads:
            while thread.is_alive() and (left_s := end_s - time.monotonic()) > 0 and not self.ending():
                thread.join(min(left_s, GLANCE_S))

    def _downstream(self, names: Sequence[str]) -> list[Task]:
        """The stages of these names, and all that follow them."""
        reached = set(names)
        for node in self._nodes:  # in an order in which every one follows its inputs
            if reached.intersection(node.inputs):
                reached.add(node.name)
        return [task for task in self.tasks if task.node.name in reached]

    def _task(self, node: Node, streams: Iterable[str]) -> Task:
        senders = [wire.sender for wire in self._wires.of(node.name)]
        if hasattr(node.stage, "policy"):  # as its links have it
            node = replace(node, stage=replace(cast(Any, node.stage), policy=node.policy or self.policy))
        ages = {stream: Ages(self._deadline_ms) for stream in streams}
        return Task(node, self._wires.receiver(node.name), senders, self, ages=ages)


def _beside_others(node: Node, *, running: bool) -> Node:
    if not isinstance(node.stage, Capture):
        return node
    return replace(node, stage=node.stage.beside_others(running=running))


def _streams(name: str, nodes: Sequence[Node]) -> list[str]:
    """The streams that reach the node `name`; a source has the one that it gives."""
    by_name = {node.name: node for node in nodes}
    node = by_name[name]
    if not node.inputs:
        return [str(getattr(node.stage, "stream", name))]
    return list(dict.fromkeys(stream for before in node.inputs for stream in _streams(before, nodes)))
