"""Fake stages, and graphs of them: a graph is tested without cameras, networks or files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Event
from typing import ClassVar

from stream_seg.config.config import Config, Node
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames, Policy, Traits
from tests.support.frames import RATE, make_frame


@dataclass
class Camera:
    """A source of numbered frames; at 30 frames/s if `paced`. `sent` lists the numbers."""

    traits: ClassVar = Traits(role="source")
    frames: int
    stream: str = "camera"
    paced: bool = False
    sent: list[int] = field(default_factory=list)

    def __call__(self, _: Frames) -> Frames:
        began_s = time.monotonic()
        for number in range(self.frames):
            if self.paced:
                time.sleep(max(0.0, began_s + number / RATE - time.monotonic()))
            self.sent.append(number)
            yield make_frame(number, stream=self.stream)


@dataclass
class Work:
    """A filter that takes `delay_s` for each frame and fails at frame `fails_at`."""

    delay_s: float = 0.0
    fails_at: int | None = None

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            if frame.seq == self.fails_at:
                raise ZeroDivisionError("no way")
            if self.delay_s:
                time.sleep(self.delay_s)
            yield frame


@dataclass
class Ledger:
    """An output that lists the frames it received: (stream, number, age in seconds). `ended` is set at its end."""

    traits: ClassVar = Traits(role="output")
    delay_s: float = 0.0
    stop_after: int | None = None
    received: list[tuple[str, int, float]] = field(default_factory=list)
    ended: Event = field(default_factory=Event)

    def __call__(self, frames: Frames) -> Frames:
        try:
            for frame in frames:
                if self.delay_s:
                    time.sleep(self.delay_s)
                self.received.append((frame.stream, frame.seq, (time.monotonic_ns() - frame.captured_ns) / 1e9))
                yield frame
                if len(self.received) == self.stop_after:
                    return
        finally:
            self.ended.set()

    @property
    def numbers(self) -> list[int]:
        """Numbers of the frames in order of arrival."""
        return [seq for _, seq, _ in self.received]

    def count(self, stream: str) -> int:
        """Return the number of frames of a stream."""
        return sum(name == stream for name, *_ in tuple(self.received))


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


def make_config(nodes: Iterable[Node], *, policy: Policy = "every") -> Config:
    """Return a config of fake stages."""
    return Config(tuple(nodes), policy, None)


def make_node(
    name: str, kind: str, stage: Callable[[Frames], Frames], *inputs: str, policy: Policy | None = None
) -> Node:
    """Return a node; `kind`, a key of TRAITS, matters for a stage without traits of its own."""
    return Node(name, kind, inputs, policy, stage if hasattr(stage, "traits") else FunctionStage(stage, TRAITS[kind]))


def make_chain(
    source: Callable[[Frames], Frames], work: Callable[[Frames], Frames], sink: Callable[[Frames], Frames]
) -> list[Node]:
    """Return the nodes of camera -> work -> sink."""
    return [
        make_node("camera", "source", source),
        make_node("work", "smooth", work, "camera"),
        make_node("sink", "output", sink, "work"),
    ]


def make_camera(name: str, stream: str | None = None) -> Node:
    """Return the node of an endless camera at 30 frames/s, which sends the stream of its name or `stream`."""
    return make_node(name, "source", Camera(1_000_000, stream=stream or name, paced=True))


def make_fan_in(*sources: Node, work: Work, sink: Ledger) -> Config:
    """Return a config of sources -> work -> sink, where every stage takes the newest frame."""
    names = [source.name for source in sources]
    nodes = [*sources, make_node("work", "smooth", work, *names), make_node("sink", "output", sink, "work")]
    return make_config(nodes, policy="latest")


def run_graph(nodes: Iterable[Node], *, policy: Policy = "every", within_s: float = 20.0) -> Graph:
    """Run a graph to its end, and return it."""
    with Graph(make_config(nodes, policy=policy)) as graph:
        assert graph.wait(within_s), "the graph did not end"
    return graph
