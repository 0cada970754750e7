"""Sources, stages and outputs that do no work, and the clock of a benchmark: what is left is what is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TypeAlias

from stream_seg.config.graph_file import Config, Node
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames, Policy
from stream_seg.telemetry.metrics import serving

Stage: TypeAlias = Callable[[Frames], Frames]
WARM_UP_FRAMES = 5
SOURCE = "source"
"""What the source is called, and the stream that it gives: a graph knows its streams by their sources."""
PATIENCE_S = 120.0
"""How long the far end may take to give the warm-up frames."""


@dataclass
class Memory:
    """A source of frames that are in memory, with their own copies of the pictures: stages draw in place. With `rate`
    (frames/s) in real time, as from a camera. The copies are made here, before any clock runs."""

    frames: Sequence[Frame]
    rate: float | None = None

    def __post_init__(self) -> None:
        self.frames = [replace(frame, image=frame.image.copy()) for frame in self.frames]

    def __call__(self, _: Frames) -> Frames:
        due_s = time.monotonic()
        for frame in self.frames:
            if self.rate:
                time.sleep(max(0.0, due_s - time.monotonic()))
                due_s = max(due_s, time.monotonic() - 1 / self.rate) + 1 / self.rate  # no burst after a wait
            yield replace(frame, captured_ns=time.monotonic_ns())


def nothing(frames: Frames) -> Frames:
    """A filter or an output that does nothing."""
    yield from frames


@dataclass
class Clock:
    """CPU time of this process, all threads, from the moment when the warm-up frames have left the far end until
    `read_ms`. The source waits for that moment, so neither opening an engine nor work begun before it is counted."""

    frames: int = 0
    overhead_ms: list[float] = field(default_factory=list)
    """Of each frame: its age at the far end less the time that stages worked on it."""
    _began_s: float = 0.0
    _warm: Event = field(default_factory=Event)

    def near(self, source: Stage) -> Stage:
        """The source, which waits."""

        def waiting(nobody: Frames) -> Frames:
            for number, frame in enumerate(source(nobody), 1):
                yield replace(frame, stream=SOURCE)
                if number == WARM_UP_FRAMES:
                    self._warm.wait(PATIENCE_S)
                    self._began_s = time.process_time()

        return waiting

    def far(self, sink: Stage) -> Stage:
        """The output, which counts."""

        def counting(frames: Frames) -> Frames:
            for number, frame in enumerate(sink(frames), 1):
                if number == WARM_UP_FRAMES:
                    self._warm.set()
                elif number > WARM_UP_FRAMES:
                    self.frames += 1
                    worked_ns = sum(stamp.ended_ns - stamp.began_ns for stamp in frame.stamps)
                    self.overhead_ms.append((time.monotonic_ns() - frame.captured_ns - worked_ns) / 1e6)
                yield frame

        return counting

    def read_ms(self) -> float:
        """CPU milliseconds per frame, the warm-up left out."""
        return 1000 * (time.process_time() - self._began_s) / max(1, self.frames)


def composed(source: Stage, stages: Mapping[str, Stage], sink: Stage) -> Clock:
    """Run the stages in a plain loop, without a graph."""
    clock = Clock()
    frames = clock.near(source)(iter(()))
    for stage in stages.values():
        frames = stage(frames)
    for _ in clock.far(sink)(frames):
        pass
    return clock


def graphed(
    source: Stage, stages: Mapping[str, Stage], sink: Stage, *, policy: Policy = "every"
) -> tuple[Clock, float]:
    """Run the stages, by name, in a graph with its metrics served. Gives the clock and its CPU-ms per frame."""
    clock = Clock()
    nodes = [Node(SOURCE, "synthetic", (), None, clock.near(source))]
    for kind, stage in stages.items():
        nodes.append(Node(kind, kind, (nodes[-1].name,), None, stage))
    nodes.append(Node("sink", "write", (nodes[-1].name,), None, clock.far(sink)))
    graph = Graph(Config(tuple(nodes), policy, None))
    with serving(graph, host="127.0.0.1", port=0), graph:
        graph.wait()
        cpu_ms = clock.read_ms()
    if graph.error is not None:
        raise graph.error
    return clock, cpu_ms
