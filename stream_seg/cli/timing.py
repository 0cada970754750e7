"""Frames through an engine and through a graph, one at a time, with the clock running."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from threading import Semaphore
from typing import Any

import numpy as np

from stream_seg.backends.engine import Engine
from stream_seg.config.graph_file import Config, check
from stream_seg.frame import Frame
from stream_seg.ops.resize import reduced
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from stream_seg.stages.registry import SINKS, SOURCES
from stream_seg.types import Image

WARM_UP, LEAST = 3, 5
"""Frames before the clock starts, and the fewest that are measured however long they take."""


@dataclass(frozen=True)
class Times:
    """Milliseconds per frame: by the wall clock, as percentiles, and of CPU time, all threads together."""

    frames: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float


def alone(engine: Engine, pictures: Sequence[Image], *, seconds: float) -> Times:
    """An engine on pictures that have its input's size already."""
    batches = cycle([reduced(picture, engine.spec.size)[None] for picture in pictures])
    for _ in range(WARM_UP):
        engine.infer(next(batches))
    took_ms: list[float] = []
    began, began_cpu = time.monotonic(), time.process_time()
    while len(took_ms) < LEAST or time.monotonic() - began < seconds:
        before = time.perf_counter()
        engine.infer(next(batches))
        took_ms.append(1000 * (time.perf_counter() - before))
    return _times(took_ms, time.process_time() - began_cpu)


def in_graph(document: Mapping[str, Any], frames: Sequence[Frame], *, seconds: float) -> Times:
    """A graph document with its one source giving `frames` from memory, over and over, and outputs that do nothing.

    Raises ConfigError for the document, and the first StreamSegError of a stage.
    """
    checked = check(document, where="graph").nodes
    stream = next(node.name for node in checked if node.kind in SOURCES)
    turns = _Turns([replace(frame, stream=stream) for frame in frames], seconds)
    stages = {**dict.fromkeys(SOURCES, turns.source), **dict.fromkeys(SINKS, turns.sink)}
    nodes = [replace(node, stage=stages.get(node.kind, node.stage)) for node in checked]
    with Graph(Config(tuple(nodes), "every", None), live=False) as graph:
        graph.wait()
    if graph.error is not None:
        raise graph.error
    return _times(turns.took_ms, turns.cpu_s)


@dataclass
class _Turns:
    """Both ends of a graph: the source gives a frame when the output has had the last one."""

    frames: Sequence[Frame]
    seconds: float
    took_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    _copied_s: float = 0.0
    _over: bool = False
    _free: Semaphore = field(default_factory=lambda: Semaphore(1))

    def source(self, _: Frames) -> Frames:
        for number, frame in enumerate(cycle(self.frames)):
            self._free.acquire()
            if self._over:
                return
            before = time.thread_time()
            image = frame.image.copy()  # stages draw in place; a decoder would have given a new picture too
            self._copied_s += time.thread_time() - before
            yield replace(frame, seq=number, image=image, captured_ns=time.monotonic_ns())

    def sink(self, frames: Frames) -> Frames:
        began = began_cpu = 0.0
        try:
            for number, frame in enumerate(frames, 1):
                if number > WARM_UP:
                    self.took_ms.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
                    self.cpu_s = time.process_time() - self._copied_s - began_cpu
                    self._over = len(self.took_ms) >= LEAST and time.monotonic() - began >= self.seconds
                elif number == WARM_UP:
                    began, began_cpu = time.monotonic(), time.process_time() - self._copied_s
                yield frame
                self._free.release()
        finally:
            self._over = True  # an error of a stage before this one: the source must not wait for a frame that is lost
            self._free.release()


def _times(took_ms: Sequence[float], cpu_s: float) -> Times:
    p50, p95, p99 = (round(float(value), 3) for value in np.percentile(took_ms, (50, 95, 99)))
    return Times(len(took_ms), p50, p95, p99, round(1000 * cpu_s / len(took_ms), 3))
