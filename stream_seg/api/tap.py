"""An output that hands its frames to the caller of the Python API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from queue import SimpleQueue

from stream_seg.frame import Frame
from stream_seg.stages.base import Context, Frames, Traits


@dataclass
class Tap:
    """An output that hands frames to an iterator in another thread, each when the iterator asks for it.

    Ctrl-C may interrupt the iterator at any instruction. A SimpleQueue, unlike a Semaphore, has no lock that this could
    leave locked for `close`.
    """

    traits = Traits(role="output")

    def __post_init__(self) -> None:
        self._requests, self._frames = SimpleQueue[None](), SimpleQueue[Frame | None]()
        self.requested = self._closed = False
        self._context = Context()

    def bind(self, context: Context) -> Tap:
        """Return the stage, which waits for its iterator as long as that takes."""
        self._context = context
        return self

    def __call__(self, frames: Frames) -> Frames:
        try:
            while True:
                self._context.busy("waiting for the iterator", within_s=inf)
                self._requests.get()
                if self._closed:
                    return
                frame = next(frames, None)
                if frame is None:
                    return
                self._frames.put(frame)
                yield frame
        finally:
            self._frames.put(None)

    def __iter__(self) -> Iterator[Frame]:
        self.requested = True
        while True:
            self._requests.put(None)
            frame = self._frames.get()
            if frame is None:
                self._frames.put(None)  # another iteration ends at once as well
                return
            yield frame

    def close(self) -> None:
        """End the stage, which may be waiting for a request."""
        self._closed = True
        self._requests.put(None)
