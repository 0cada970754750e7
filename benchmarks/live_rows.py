"""The rows of overload.py: a recording, live sources in the graph, and the loop that a user writes for cameras."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from threading import Condition, Event, Thread
from typing import NamedTuple

import av
import numpy as np
from expert import Expert, to_image
from stand_ins import FunctionStage, pass_through
from surroundings import default_filters

from stream_seg.config.config import Config, Node
from stream_seg.errors import StreamSegError
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames, Policy, Traits
from stream_seg.stages.capture import Capture
from stream_seg.types import Image

WARM_UP_S, STARTING_S = 2.0, 60.0


class Arrival(NamedTuple):
    """An image that has reached the end, at a time of CLOCK_MONOTONIC, and its age."""

    stream: str
    at_s: float
    age_ms: float


class Arrivals:
    """The images of `count` streams that have reached the end; any thread adds them."""

    def __init__(self, count: int) -> None:
        self._count, self._all = count, list[Arrival]()
        self._streams, self._complete = set[str](), Event()

    def add(self, stream: str, captured_ns: int) -> None:
        """Note that an image is there now."""
        now_ns = time.monotonic_ns()
        self._all.append(Arrival(stream, now_ns / 1e9, (now_ns - captured_ns) / 1e6))
        self._streams.add(stream)
        if len(self._streams) == self._count:
            self._complete.set()

    def measure(self, seconds: float) -> dict[str, float]:
        """Wait for the first image of every stream, then return the figures of so many seconds."""
        if not self._complete.wait(STARTING_S):
            raise StreamSegError(
                f"{len(self._streams)} of {self._count} sources delivered an image in {STARTING_S:g} s"
            )
        time.sleep(WARM_UP_S)
        first, began_s, began_cpu_s = len(self._all), time.monotonic(), time.process_time()
        time.sleep(seconds)
        cpu_s, ended_s = time.process_time() - began_cpu_s, time.monotonic()
        return summarize(self._all[first:], self._streams, began_s, ended_s, cpu_s=cpu_s)


def summarize(
    arrivals: Iterable[Arrival], streams: Iterable[str], began_s: float, ended_s: float, *, cpu_s: float
) -> dict[str, float]:
    """Return the figures of the images that arrived between two times."""
    times_s: dict[str, list[float]] = {stream: [] for stream in streams}
    ages_ms = []
    for stream, at_s, age_ms in arrivals:
        times_s[stream].append(at_s)
        ages_ms.append(age_ms)
    if not ages_ms:
        raise StreamSegError(f"no image arrived in {ended_s - began_s:g} s")
    pauses_s = [
        after - before for times in times_s.values() for before, after in pairwise(chain([began_s], times, [ended_s]))
    ]
    rates = [len(times) / (ended_s - began_s) for times in times_s.values()]
    return {
        "fps": sum(rates),
        "cpu_ms": 1000 * cpu_s / len(ages_ms),
        "least": min(rates),
        "most": max(rates),
        "pause_s": max(pauses_s),
        "age_p50_ms": float(np.percentile(ages_ms, 50)),
        "age_p95_ms": float(np.percentile(ages_ms, 95)),
    }


def run_graph(clip: Path, *, count: int, seconds: float, requests: int | None = None) -> dict[str, float]:
    """Return the figures of `count` live sources in the default graph, with this setting of `segment.requests`."""
    arrivals = Arrivals(count)

    def note(frames: Frames) -> Frames:
        for frame in frames:
            if frame.signal is None:
                arrivals.add(frame.stream, frame.captured_ns)
            yield frame

    sources = [Capture(str(clip), stream=f"camera{number}", loop=True) for number in range(count)]
    output = FunctionStage(note, Traits(role="output"))
    with make_graph(sources, output, policy="latest", requests=requests) as graph:
        figures = arrivals.measure(seconds)
    if graph.error is not None:
        raise graph.error
    return figures


def run_recording(clip: Path) -> dict[str, float]:
    """Return the frames/s of a clip in the default graph, from the first one at the output to the last."""
    with make_graph([Capture(str(clip))], FunctionStage(pass_through, Traits(role="output")), policy="every") as graph:
        graph.wait()
    if graph.error is not None:
        raise graph.error
    return {"fps": graph.workers[-1].mean_fps()}


def make_graph(sources: list[Capture], output: FunctionStage, *, policy: Policy, requests: int | None = None) -> Graph:
    """Return the default graph between sources and an output."""
    nodes = [Node(source.stream, "capture", (), None, source) for source in sources]
    inputs = tuple(node.name for node in nodes)
    filters = default_filters()
    filters["segment"] = replace(filters["segment"], requests=requests)  # type: ignore[type-var]
    for name, stage in filters.items():
        nodes.append(Node(name, name, inputs, None, stage))
        inputs = (name,)
    return Graph(Config((*nodes, Node("output", "output", inputs, None, output)), policy, None))


class Cameras:
    """A thread for each camera that decodes the clip in a loop at its own pace, and keeps the newest image. A context
    manager."""

    def __init__(self, clip: Path, count: int) -> None:
        self._clip, self._changed, self._closed = clip, Condition(), False
        self._newest: dict[int, tuple[Image, int]] = {}
        self._threads = [Thread(target=self._decode, args=(number,)) for number in range(count)]

    def __enter__(self) -> Cameras:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def take(self) -> Iterator[tuple[int, Image, int]]:
        """Yield camera, image and time of capture of new images, in turns, until the cameras are closed."""
        last = -1
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._closed)
                if self._closed:
                    return
                last = min(self._newest, key=lambda number: (number <= last, number))
                image, captured_ns = self._newest.pop(last)
            yield last, image, captured_ns

    def _decode(self, number: int) -> None:
        due_s = time.monotonic()
        while not self._closed:
            with av.open(str(self._clip)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                interval_s = float(1 / (stream.average_rate or 30))
                for frame in container.decode(stream):
                    if self._closed:
                        return
                    image = to_image(frame)
                    due_s = max(due_s + interval_s, time.monotonic() - interval_s)
                    time.sleep(max(0.0, due_s - time.monotonic()))
                    with self._changed:
                        self._newest[number] = image, time.monotonic_ns()
                        self._changed.notify()


def run_loop(clip: Path, *, count: int, seconds: float) -> dict[str, float]:
    """Return the figures of `count` cameras in the loop of expert.py."""
    arrivals, expert, taken = Arrivals(count), Expert(), deque[tuple[int, int]]()

    def take() -> Iterator[Image]:
        for number, image, captured_ns in cameras.take():
            taken.append((number, captured_ns))
            yield image

    def run() -> None:
        for image, labels in expert.segment(take()):
            expert.draw(image, labels)
            number, captured_ns = taken.popleft()
            arrivals.add(str(number), captured_ns)

    thread = Thread(target=run)
    with Cameras(clip, count) as cameras:
        thread.start()
        figures = arrivals.measure(seconds)
    thread.join()
    return figures
