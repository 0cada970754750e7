"""Stages that do no work, and a clock of CPU time: what remains is the cost of the measured stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TypeAlias

from stream_seg.config.config import Config, Node
from stream_seg.config.document import MetricsConfig
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames, Policy, Traits
from stream_seg.telemetry.metrics import register
from stream_seg.telemetry.server import serve_metrics

Stage: TypeAlias = Callable[[Frames], Frames]
WARM_UP_FRAMES = 5
SOURCE = "source"
"""Name of the source and of its stream; they have to be equal."""
WARM_UP_TIMEOUT_S = 120.0


@dataclass
class FunctionStage:
    """A stage whose body is a function."""

    run: Stage
    traits: Traits

    def __call__(self, frames: Frames) -> Frames:
        return self.run(frames)


@dataclass
class MemorySource:
    """A source of frames from memory; with `rate` (frames/s) in real time, as from a camera.

    It has images of its own, since stages draw in place. They are copied here, before any clock runs.
    """

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


def pass_through(frames: Frames) -> Frames:
    """Yield the frames unchanged: a filter or an output that does nothing."""
    yield from frames


@dataclass
class CpuClock:
    """CPU time of this process, all threads, from the end of the warm-up until `read_ms`.

    The warm-up ends when its frames have left the output. The source waits for that, so that neither the opening of an
    engine nor work that began earlier is counted.
    """

    frames: int = 0
    overhead_ms: list[float] = field(default_factory=list)
    """Of each frame: its age at the output minus the time that stages worked on it."""
    _began_s: float = 0.0
    _warm: Event = field(default_factory=Event)

    def wrap_source(self, source: Stage) -> FunctionStage:
        """Return the source, which waits after the warm-up frames."""

        def run(no_frames: Frames) -> Frames:
            for number, frame in enumerate(source(no_frames), 1):
                yield replace(frame, stream=SOURCE)
                if number == WARM_UP_FRAMES:
                    self._warm.wait(WARM_UP_TIMEOUT_S)
                    self._began_s = time.process_time()

        return FunctionStage(run, Traits(role="source"))

    def wrap_output(self, output: Stage) -> FunctionStage:
        """Return the output, which counts its frames."""

        def run(frames: Frames) -> Frames:
            for number, frame in enumerate(output(frames), 1):
                if number == WARM_UP_FRAMES:
                    self._warm.set()
                elif number > WARM_UP_FRAMES:
                    self.frames += 1
                    worked_ns = sum(stamp.ended_ns - stamp.began_ns for stamp in frame.stamps)
                    self.overhead_ms.append((time.monotonic_ns() - frame.captured_ns - worked_ns) / 1e6)
                yield frame

        return FunctionStage(run, Traits(role="output"))

    def read_ms(self) -> float:
        """Return the CPU milliseconds per frame after the warm-up."""
        return 1000 * (time.process_time() - self._began_s) / max(1, self.frames)


def run_loop(source: Stage, stages: Mapping[str, Stage], output: Stage) -> CpuClock:
    """Run the stages in a plain loop, without a graph."""
    clock = CpuClock()
    frames = clock.wrap_source(source)(iter(()))
    for stage in stages.values():
        frames = stage(frames)
    for _ in clock.wrap_output(output)(frames):
        pass
    return clock


def run_graph(
    source: Stage, stages: Mapping[str, Stage], output: Stage, *, policy: Policy = "every"
) -> tuple[CpuClock, float]:
    """Run the stages, by name, in a graph with its metrics served. Return the clock and the CPU-ms per frame."""
    clock = CpuClock()
    nodes = [Node(SOURCE, "source", (), None, clock.wrap_source(source))]
    for name, stage in stages.items():
        nodes.append(Node(name, name, (nodes[-1].name,), None, stage))
    nodes.append(Node("output", "output", (nodes[-1].name,), None, clock.wrap_output(output)))
    graph = Graph(Config(tuple(nodes), policy, None))
    register(graph)
    with serve_metrics(graph, MetricsConfig(port=0)), graph:
        graph.wait()
        cpu_ms = clock.read_ms()
    if graph.error is not None:
        raise graph.error
    return clock, cpu_ms
