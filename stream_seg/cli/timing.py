"""Read frames into memory, and time them through an engine and through a graph, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from threading import Semaphore
from typing import Any

import numpy as np

from stream_seg.backends.engine import Engine
from stream_seg.config.config import Config
from stream_seg.config.graph_file import check
from stream_seg.config.overrides import default_document, with_input, with_outputs
from stream_seg.errors import SourceError
from stream_seg.frame import Frame
from stream_seg.ops.resize import resize_image
from stream_seg.runtime.graph import Graph
from stream_seg.sources.uri import parse_source
from stream_seg.stages.base import Frames, Traits
from stream_seg.stages.registry import StageLoader
from stream_seg.types import Image

WARM_UP_FRAMES, LEAST_FRAMES = 3, 5
"""Frames before the measurement starts, and the fewest that are measured however long they take."""
PATIENCE_S = 15.0
"""Time to wait for an image of a live input; longer than capture takes to report that it cannot be opened."""


@dataclass(frozen=True)
class Times:
    """Milliseconds per frame: percentiles of the wall-clock time, and mean CPU time of all threads together."""

    frames: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float


def read_frames(uri: str, count: int) -> list[Frame]:
    """Return the first frames of an INPUT that have an image, at least one. Raises SourceError or ConfigError."""
    shown = parse_source(uri).display
    (source,) = check(graph_document(uri), where=shown).sources
    return take_frames(source.stage(iter(())), count, shown=shown)


def take_frames(frames: Frames, count: int, *, shown: str, patience_s: float = PATIENCE_S) -> list[Frame]:
    """Return up to `count` frames with an image, fewer if none comes for `patience_s`. Raises SourceError for none."""
    taken, last_s, signal = list[Frame](), time.monotonic(), None
    for frame in frames:
        if frame.signal is None:
            taken.append(frame)
            last_s = time.monotonic()
            if len(taken) == count:
                break
        elif time.monotonic() - last_s >= patience_s:
            signal = frame.signal
            break
    if not taken and signal is not None:
        cause = signal.reason or signal.state
        raise SourceError(f"{shown}: no image for {patience_s:g} s ({cause})", reason=signal.reason or "no data")
    if not taken:
        raise SourceError(f"{shown}: has no image to measure with")
    return taken


def graph_document(uri: str) -> dict[str, Any]:
    """Return the default graph from an INPUT into a window."""
    loader = StageLoader()
    return with_outputs(with_input(default_document(), uri, loader), ["window"], loader)


def time_engine(engine: Engine, images: Sequence[Image], *, seconds: float) -> Times:
    """Time an engine for `seconds`, on images already resized to its input."""
    batches = cycle([resize_image(image, engine.spec.size)[None] for image in images])
    for _ in range(WARM_UP_FRAMES):
        engine.infer(next(batches))
    frame_ms: list[float] = []
    began, began_cpu = time.monotonic(), time.process_time()
    while len(frame_ms) < LEAST_FRAMES or time.monotonic() - began < seconds:
        before = time.perf_counter()
        engine.infer(next(batches))
        frame_ms.append(1000 * (time.perf_counter() - before))
    return _make_times(frame_ms, time.process_time() - began_cpu)


def time_graph(document: Mapping[str, Any], frames: Sequence[Frame], *, seconds: float) -> Times:
    """Time a graph for `seconds`, with `frames` from memory instead of its one source, and outputs that do nothing.

    Raises ConfigError for the document, and the first StreamSegError of a stage.
    """
    config = check(document, where="graph")
    (source,) = config.sources
    pair = _SourceAndOutput([replace(frame, stream=source.name) for frame in frames], seconds)
    replacements = {
        "source": _FunctionStage(pair.yield_frames, Traits(role="source")),
        "output": _FunctionStage(pair.take_frames, Traits(role="output")),
    }
    nodes = tuple(replace(node, stage=replacements.get(node.role, node.stage)) for node in config.nodes)
    with Graph(Config(nodes, "every", None)) as graph:
        graph.wait()
    if graph.error is not None:
        raise graph.error
    return _make_times(pair.frame_ms, pair.cpu_s)


@dataclass
class _FunctionStage:
    run: Callable[[Frames], Frames]
    traits: Traits

    def __call__(self, frames: Frames) -> Frames:
        return self.run(frames)


@dataclass
class _SourceAndOutput:
    """Both ends of a graph: the source yields a frame once the output has received the one before."""

    frames: Sequence[Frame]
    seconds: float
    frame_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    _copy_s: float = 0.0
    _done: bool = False
    _received: Semaphore = field(default_factory=lambda: Semaphore(1))

    def yield_frames(self, _: Frames) -> Frames:
        """Yield the frames over and over until the time is up."""
        for number, frame in enumerate(cycle(self.frames)):
            self._received.acquire()
            if self._done:
                return
            before = time.thread_time()
            image = frame.image.copy()  # stages draw on images; a decoder would yield a new one too
            self._copy_s += time.thread_time() - before
            yield replace(frame, seq=number, image=image, captured_ns=time.monotonic_ns())

    def take_frames(self, frames: Frames) -> Frames:
        """Measure every frame after the warm-up."""
        began = began_cpu = 0.0
        try:
            for number, frame in enumerate(frames, 1):
                if number > WARM_UP_FRAMES:
                    self.frame_ms.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
                    self.cpu_s = time.process_time() - self._copy_s - began_cpu
                    elapsed = time.monotonic() - began
                    self._done = len(self.frame_ms) >= LEAST_FRAMES and elapsed >= self.seconds
                elif number == WARM_UP_FRAMES:
                    began, began_cpu = time.monotonic(), time.process_time() - self._copy_s
                yield frame
                self._received.release()
        finally:
            self._done = True  # after an error of a stage the source must not wait for a lost frame
            self._received.release()


def _make_times(frame_ms: Sequence[float], cpu_s: float) -> Times:
    p50, p95, p99 = (round(float(value), 3) for value in np.percentile(frame_ms, (50, 95, 99)))
    return Times(len(frame_ms), p50, p95, p99, round(1000 * cpu_s / len(frame_ms), 3))
