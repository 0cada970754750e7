"""Run the network on later key frames of a recording while the frames before them are warped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial

from stream_seg.frame import Frame, Semantic
from stream_seg.keyframes.keyframes import Inference
from stream_seg.per_stream import PerStream
from stream_seg.types import Image

MOST_FRAMES = 6
"""Frames that wait for their turn, at most: 36 MiB of 1920x1080."""


class Lookahead:
    """Frames of all streams that are read ahead, with every `every`th after a key frame segmented by `workers`.

    Where something new comes into view a key frame comes early, and a result that was computed ahead is not used: the
    decisions, and so all results, are those without lookahead. `requests` is the number of results to compute ahead.
    """

    def __init__(self, infer: Inference, workers: Executor, *, every: int, requests: int) -> None:
        self._infer, self._workers = infer, workers
        self._every, self._requests = every, requests
        self._waiting = deque[tuple[Frame, Future[Semantic] | None]]()
        self._ages: PerStream[int] = PerStream()  # frames from the last key frame to the last frame that was read

    def add(self, frame: Frame) -> None:
        """Read a frame, and start the network if it should become a key frame."""
        future = None
        if frame.signal is None:
            age = self._ages.get(frame.stream)
            age = 0 if age is None else (age + 1) % self._every
            self._ages.put(frame.stream, age)
            future = self._workers.submit(self._infer(frame.image)) if age == 0 else None
        self._waiting.append((frame, future))

    def take(self, *, rest: bool = False) -> Iterator[tuple[Frame, Inference]]:
        """Yield the frames whose turn has come, with the result of the network or the function that computes it; with
        `rest` all of them."""
        while self._waiting and (rest or self._is_full()):
            frame, future = self._waiting.popleft()
            yield frame, self._infer if future is None else partial(_get_result, future)

    def restart(self, stream: str) -> None:
        """Note that the frame taken last was a key frame: those after it are counted from there."""
        waiting = sum(frame.stream == stream and frame.signal is None for frame, _ in self._waiting)
        self._ages.put(stream, waiting % self._every)

    def _is_full(self) -> bool:
        foreseen = sum(future is not None for _, future in self._waiting)
        return foreseen > self._requests or len(self._waiting) >= MOST_FRAMES


def look_ahead(frames: Iterable[Frame], ahead: Lookahead) -> Iterator[tuple[Frame, Inference]]:
    """Yield each frame with its inference when its turn has come."""
    for frame in frames:
        ahead.add(frame)
        yield from ahead.take()
    yield from ahead.take(rest=True)


def _get_result(future: Future[Semantic], _: Image) -> Callable[[], Semantic]:
    return future.result
