"""Small graphs of stand-in stages: what a graph does with stages, without any real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from threading import Event

from stream_seg.config.graph_file import Config, Node
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames, Policy, Traits
from tests.support.frames import RATE, frame


@dataclass
class Camera:
    """A source of numbered frames; with `paced` at 30 frames/s. Notes what it gave."""

    traits = Traits(role="source")

    frames: int
    stream: str = "camera"
    paced: bool = False
    gave: list[int] = field(default_factory=list)

    def __call__(self, _: Frames) -> Frames:
        began = time.monotonic()
        for number in range(self.frames):
            if self.paced:
                time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            self.gave.append(number)
            yield replace(frame(number, stream=self.stream))


@dataclass
class Work:
    """A filter that takes `delay_s` for each frame, and fails at frame `fails_at`."""

    delay_s: float = 0.0
    fails_at: int | None = None

    def __call__(self, frames: Frames) -> Frames:
        for taken in frames:
            if taken.seq == self.fails_at:
                raise ZeroDivisionError("no way")
            if self.delay_s:
                time.sleep(self.delay_s)
            yield taken


@dataclass
class Ledger:
    """A sink that notes what it got: (stream, seq, age in seconds), and whether its end came."""

    traits = Traits(role="output")

    delay_s: float = 0.0
    leave_after: int | None = None
    got: list[tuple[str, int, float]] = field(default_factory=list)
    ended: Event = field(default_factory=Event)

    def __call__(self, frames: Frames) -> Frames:
        try:
            for taken in frames:
                if self.delay_s:
                    time.sleep(self.delay_s)
                self.got.append((taken.stream, taken.seq, (time.monotonic_ns() - taken.captured_ns) / 1e9))
                yield taken
                if len(self.got) == self.leave_after:
                    return
        finally:
            self.ended.set()

    @property
    def numbers(self) -> list[int]:
        """The numbers of the frames, in the order of their arrival."""
        return [seq for _, seq, _ in self.got]


@dataclass
class FunctionStage:
    """A stage whose body is a function or another stage, with traits of its own."""

    run: Callable[[Frames], Frames]
    traits: Traits

    def __call__(self, frames: Frames) -> Frames:
        return self.run(frames)


TRAITS = {
    "source": Traits(role="source"),
    "filter": Traits(),
    "output": Traits(role="output"),
    "segment": Traits(produces=("labels",), age_feedback=True),
    "smooth": Traits(produces=("smoothing",)),
}


def config(nodes: Iterable[Node], *, policy: Policy = "every") -> Config:
    """Return a config of fake stages."""
    return Config(tuple(nodes), policy, None)


def node(name: str, kind: str, stage: Callable[[Frames], Frames], *inputs: str, policy: Policy | None = None) -> Node:
    """Return a node; `kind`, a key of TRAITS, matters for a stage without traits of its own."""
    return Node(name, kind, inputs, policy, stage if hasattr(stage, "traits") else FunctionStage(stage, TRAITS[kind]))


def line(
    source: Callable[[Frames], Frames], work: Callable[[Frames], Frames], sink: Callable[[Frames], Frames]
) -> list[Node]:
    """Return the nodes camera -> work -> sink."""
    return [
        node("camera", "source", source),
        node("work", "smooth", work, "camera"),
        node("sink", "output", sink, "work"),
    ]


def run_graph(nodes: Iterable[Node], *, policy: Policy = "every", within_s: float = 20.0) -> Graph:
    """Run a graph to its end, and return it."""
    with Graph(config(nodes, policy=policy)) as graph:
        assert graph.wait(within_s), "the graph did not end"
    return graph
