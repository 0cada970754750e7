"""The stages and links of one config, running: a thread per stage, a link per arrow."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from threading import Event, Lock, Thread
from types import TracebackType

import zmq

from stream_seg.config import Config, Node
from stream_seg.errors import StageError, StreamSegError
from stream_seg.frame import EngineInfo, Frame, Stamp
from stream_seg.kinds import SINKS, SOURCES
from stream_seg.link import ByReference, Link, Policy, Receiver, Sender
from stream_seg.samples import Samples
from stream_seg.stage import Frames

LOG = logging.getLogger(__name__)
DRAIN_S = 1.0
"""How long a stopped graph works on the frames under way before it gives them up."""
FINISH_S = 30.0
"""How long a stopped graph waits for outputs that finish their files: the index of an hour's mp4 goes to its front."""
FINISH_FRAME_S = 0.25
"""How long a stopped graph waits for the one frame that a stage is at."""
MISS_REASONS = ("decode_error", "late")


class Task:
    """One stage at work: its thread, its links, and what is known of its frames."""

    def __init__(self, node: Node, receiver: Receiver, senders: Sequence[Sender], graph: Graph) -> None:
        self.node = node
        self.is_source, self.is_sink = node.kind in SOURCES, node.kind in SINKS
        self.receiver, self.senders = receiver, senders
        self.taken = self.yielded = 0
        self.up = False
        self.failed = False
        self.finishing = False  # its input has ended
        self.missed: Counter[str] = Counter(dict.fromkeys(MISS_REASONS, 0))
        self.engine: EngineInfo | None = None
        self.duration_ms, self.age_ms, self.overhead_ms = Samples(), Samples(), Samples()
        self.observe_duration: Callable[[float], None] = lambda _value: None  # until somebody wants to know
        self.observe_age: Callable[[float], None] = lambda _value: None
        self.last: Frame | None = None
        self._graph = graph
        self._began_ns = 0
        self._first_ns: int | None = None
        self._first_cpu_s = 0.0
        self._times: deque[int] = deque(maxlen=60)
        self.thread = Thread(target=self._run, name=node.name, daemon=True)

    def fps(self) -> float:
        """Frames per second over the last 60 yielded; 0 once none came for two seconds."""
        times = tuple(self._times)
        if len(times) < 2 or time.monotonic_ns() - times[-1] > 2_000_000_000:
            return 0.0
        return (len(times) - 1) * 1e9 / max(1, times[-1] - times[0])

    def mean_fps(self) -> float:
        """Frames per second from the first frame yielded to the last."""
        first, last = self._first_ns, self._times[-1] if self._times else 0
        return (self.yielded - 1) * 1e9 / (last - first) if first is not None and last > first else 0.0

    def cpu_ms(self) -> float | None:
        """CPU milliseconds of the whole process per frame yielded after the first; None before the second."""
        return 1000 * (time.process_time() - self._first_cpu_s) / (self.yielded - 1) if self.yielded > 1 else None

    @property
    def first_s(self) -> float | None:
        """Seconds from the start of the graph to the first frame yielded; None before it."""
        return None if self._first_ns is None else (self._first_ns - self._graph.started_ns) / 1e9

    def _run(self) -> None:
        try:
            self._work()
        except StreamSegError as error:
            self.failed = True
            self._graph.fail(error)
        except BaseException as error:  # a panic of foreign code too: whatever it is ends the run
            self.failed = True
            LOG.debug("stage %s", self.node.name, exc_info=True)
            where = f" at frame {self.last.stream}:{self.last.seq}" if self.last else ""
            said = " ".join(f"{type(error).__name__}: {error}".split())
            self._graph.fail(StageError(f"stage {self.node.name} failed{where}: {said}"))
        finally:
            self.up = False
            for sender in self.senders:
                sender.end()
            if self.is_sink and not self.receiver.ended:
                self._graph.stop()
            self.receiver.close()
            self._graph.ended(self)

    def _work(self) -> None:
        self._began_ns = time.monotonic_ns()
        frames = self.node.stage(self._watched(self.receiver.frames()))
        with closing(frames) if isinstance(frames, Generator) else nullcontext():
            for frame in frames:
                stamped = self._note(frame)
                wanted = [sender.put(stamped) for sender in self.senders]
                if wanted and not any(wanted):
                    return
                self._began_ns = time.monotonic_ns()

    def _watched(self, frames: Frames) -> Frames:
        for frame in frames:
            self.taken += 1
            self.last = frame
            self._began_ns = time.monotonic_ns()
            yield frame
        self.finishing = True

    def _note(self, frame: Frame) -> Frame:
        now = time.monotonic_ns()
        took_ns = now - self._began_ns
        self.last, self.up = frame, self.is_source
        self.yielded += 1
        self._times.append(now)
        if self._first_ns is None:
            self._first_ns, self._first_cpu_s = now, time.process_time()
        self.duration_ms.add(took_ns / 1e6)
        self.observe_duration(took_ns / 1e9)
        if self.is_source:
            self.missed.update(frame.missed)
        elif frame.semantic is not None:
            self.engine = frame.semantic.engine
        began_ns = frame.captured_ns if self.is_source else self._began_ns
        stamps = (*frame.stamps, Stamp(self.node.name, began_ns, now))
        if self.is_sink:
            age_ns = now - frame.captured_ns
            self.age_ms.add(age_ns / 1e6)
            self.observe_age(age_ns / 1e9)
            self.overhead_ms.add((age_ns - sum(s.ended_ns - s.began_ns for s in stamps)) / 1e6)
        if len(self.senders) > 1:
            frame.image.flags.writeable = False  # shared from here on: who draws on it copies it
        return replace(frame, stamps=stamps)


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
        self.tasks = [self._task(node) for node in config.nodes]
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

    def _task(self, node: Node) -> Task:
        receiver = Receiver([link for _, to, link in self._ends if to == node.name], self._codec)
        senders = [self._senders[link.name] for name, _, link in self._ends if name == node.name]
        return Task(node, receiver, senders, self)
