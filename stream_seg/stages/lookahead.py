"""Run the network on later frames of a recording while earlier ones are computed, warped and drawn."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from functools import partial

from stream_seg.frame import Frame, Semantic
from stream_seg.keyframes.keyframes import Inference
from stream_seg.stages.base import Context
from stream_seg.types import Image

LOG = logging.getLogger(__name__)
MOST_FRAMES = 6
"""Frames that wait for their turn, at most, unless there are as many requests: 36 MiB of 1920x1080."""
POLL_S = 0.005
"""Interval at which a frame that waits for its result looks for the next one."""
STOP_S = 1.0
"""Time that a stopped run gives the results that were computed ahead."""


class Lookahead:
    """Frames of all streams that are read ahead, with every `every`th after a key frame segmented by `workers`.

    `requests` results are computed at a time, and one waits. Where something new comes into view a key frame comes
    early, and a result that was computed ahead is not used: decisions and results are those without lookahead.
    `context` is that of the stage. No frame is read before it has come, since it would delay those that are done. At
    the end of a stopped run, frames whose results take longer than STOP_S in all are dropped.
    """

    def __init__(self, infer: Inference, workers: Executor, *, every: int, requests: int, context: Context) -> None:
        self._infer, self._workers, self._context = infer, workers, context
        self._every, self._requests = every, requests
        self._most_frames = max(MOST_FRAMES, requests + 1)
        self._waiting = deque[tuple[Frame, Future[Semantic] | None]]()
        self._ages: dict[str, int] = {}  # by stream: frames from the last key frame to the last frame that was read

    def read(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Inference]]:
        """Yield each frame when its turn has come, with its inference, which is called if it is a key frame."""
        failing: Frame | None = None
        try:
            for frame in frames:
                failing = frame
                self._add(frame)
                while self._waiting and self._must_yield():
                    yield self._take()
        except Exception:
            yield from self._finish()  # the frames before the error
            if failing is not None:
                self._context.begin(failing)
            raise
        yield from self._finish()

    def _add(self, frame: Frame) -> None:
        future = None
        if frame.signal is None:
            age = self._ages[frame.stream] = (self._ages.get(frame.stream, -1) + 1) % self._every
            future = self._workers.submit(self._infer(frame.image)) if age == 0 else None
        self._waiting.append((frame, future))

    def _take(self) -> tuple[Frame, Inference]:
        frame, future = self._waiting.popleft()
        self._context.begin(frame)
        return frame, partial(self._infer_key_frame, frame.stream, future)

    def _infer_key_frame(self, stream: str, future: Future[Semantic] | None, image: Image) -> Callable[[], Semantic]:
        """Count the frames of a stream from this one, taken last, and return the function that gives its result."""
        waiting = sum(frame.stream == stream and frame.signal is None for frame, _ in self._waiting)
        self._ages[stream] = waiting % self._every
        return self._infer(image) if future is None else future.result

    def _finish(self) -> Iterator[tuple[Frame, Inference]]:
        patience_s = STOP_S
        while self._waiting:
            frame, future = self._waiting[0]
            if future is not None and self._context.stopping():
                self._context.begin(frame)
                began_s = time.monotonic()
                if not wait((future,), patience_s).done:
                    LOG.warning("stopped: %d frames read ahead are dropped, the network takes long", len(self._waiting))
                    return
                patience_s = max(0.0, patience_s + began_s - time.monotonic())
            yield self._take()

    def _must_yield(self) -> bool:
        """Return True if the first frame has to be taken, False if there is room for the next one, which is here."""
        foreseen = sum(future is not None for _, future in self._waiting)
        if foreseen > self._requests or len(self._waiting) >= self._most_frames:
            return True
        frame, future = self._waiting[0]
        if not self._context.ready():
            self._context.begin(frame)
        while not self._context.ready():
            if future is None or wait((future,), POLL_S).done:
                return True
        return False
