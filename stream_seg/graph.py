"""The stages and links of one config, running: a thread per stage, a link per arrow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from threading import Event, Lock
from types import TracebackType
from typing import Any, cast

import zmq

from stream_seg.books import Link, Policy
from stream_seg.config import Config, Node
from stream_seg.errors import StreamSegError
from stream_seg.frame import Age, EngineInfo
from stream_seg.link import ByReference, Receiver, Sender
from stream_seg.samples import Ages
from stream_seg.task import Task

DRAIN_S = 1.0
"""How long a stopped graph works on the frames under way before it gives them up."""
FINISH_S = 30.0
"""How long a stopped graph waits for outputs that finish their files: the index of an hour's mp4 goes to its front."""
FINISH_FRAME_S = 0.25
"""How long a stopped graph waits for the one frame that a stage is at."""

EARSHOT = 1024
"""How many ages a stage keeps that takes no frame meanwhile."""


class Graph:
    """A running config. `with Graph(config, live=...) as graph: graph.wait()`; `error` is the first of any stage."""

    def __init__(self, config: Config, *, live: bool) -> None:
        self._codec = ByReference()
        self.done, self._lock = Event(), Lock()
        self.error: StreamSegError | None = None
        self.policy: Policy = ("latest" if live else "every") if config.policy == "auto" else config.policy
        self._ends = [
            (name, node.name, Link(f"{name}->{node.name}", node.policy or self.policy))
            for node in config.nodes
            for name in node.inputs
        ]
        self._senders = {link.name: Sender(link, self._codec) for _, _, link in self._ends}
        self._deadline_ms = config.deadline_ms
        self.tasks = [self._task(node, _streams(node.name, config.nodes)) for node in config.nodes]
        self._connect_ages()
        self._running = len(self.tasks)
        self._outputs = sum(task.is_sink for task in self.tasks)
        self.started_ns = time.monotonic_ns()

    @property
    def links(self) -> list[Link]:
        """Every arrow of the graph."""
        return [link for _, _, link in self._ends]

    def engines(self) -> dict[str, EngineInfo | None]:
        """By segment stage, what computes there; None before its first frame."""
        return {task.node.name: task.engine for task in self.tasks if task.node.kind == "segment"}

    def __enter__(self) -> Graph:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        for task in self.tasks:
            task.receiver.bind(self._context, f"inproc://{task.node.name}")
        self._threads = [
            self._senders[link.name].start(self._context, f"inproc://{receiver}") for _, receiver, link in self._ends
        ]
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
        for sender in self._senders.values():
            sender.end()  # in the place of a stage that hangs: the outputs behind it are to finish their files
        for task in self.tasks:
            task.thread.join(FINISH_FRAME_S)
            if task.is_sink and task.finishing:
                task.thread.join(FINISH_S)
        for sender in self._senders.values():
            sender.stop()
        for thread in self._threads:
            thread.join(DRAIN_S / 2)
        for link in self.links:
            link.settle()

    def hanging(self) -> list[Task]:
        """The stages that have not ended."""
        return [task for task in self.tasks if task.thread.is_alive()]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every output has ended, after which nothing can come; False where the time ran out before."""
        return self.done.wait(timeout_s)

    def stop(self) -> None:
        """End the sources: what is under way is still worked on, and files are finished."""
        for task in self.tasks:
            if task.is_source:
                for sender in task.senders:
                    sender.end()

    def fail(self, error: StreamSegError) -> None:
        """Note the first error, and stop."""
        with self._lock:
            self.error = self.error or error
        self.stop()

    def ended(self, task: Task) -> None:
        """A stage has ended; with the last output, the run; with the last stage of all, the sockets."""
        with self._lock:
            self._running -= 1
            self._outputs -= task.is_sink
            if not self._outputs:
                self.done.set()
        if not self._running:
            for thread in self._threads:
                thread.join()
            self._context.term()

    def _connect_ages(self) -> None:
        """Outputs tell the segment stages how old frames are; it travels on with the frames, as `Frame.ages`."""
        ears = {task.node.name: deque[Age](maxlen=EARSHOT) for task in self.tasks if task.node.kind == "segment"}
        for task in self.tasks:
            task.heard, task.tell = ears.get(task.node.name), ears if task.is_sink else {}

    def _task(self, node: Node, streams: Iterable[str]) -> Task:
        receiver = Receiver([link for _, to, link in self._ends if to == node.name], self._codec)
        senders = [self._senders[link.name] for name, _, link in self._ends if name == node.name]
        if hasattr(node.stage, "policy"):  # as its links have it
            node = replace(node, stage=replace(cast(Any, node.stage), policy=node.policy or self.policy))
        return Task(node, receiver, senders, self, ages={stream: Ages(self._deadline_ms) for stream in streams})


def _streams(name: str, nodes: Sequence[Node]) -> list[str]:
    """The streams that reach the node `name`; a source has the one that it gives."""
    by_name = {node.name: node for node in nodes}
    node = by_name[name]
    if not node.inputs:
        return [str(getattr(node.stage, "stream", name))]
    return list(dict.fromkeys(stream for before in node.inputs for stream in _streams(before, nodes)))
