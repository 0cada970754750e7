"""The board: the newest frame of every stream and its figures, written by the pipeline and read by the page.

Writing is a swap under a lock, whatever the readers do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from threading import Condition

from stream_seg.frame import Frame, Semantic, Signal, State

STALLED_S = 3.0
"""A stream without a frame for so long is stalled, whatever its source says."""
FORGOTTEN_S = 300.0
"""A stream without a frame for so long is no longer listed."""
WINDOW_S = 2.0
"""Rates are of the frames of so many seconds."""
HISTORY = 120
"""How many seconds the charts go back."""


@dataclass(frozen=True)
class Reading:
    """A stream at one moment: frames per second and milliseconds since capture of its last seconds, frames that did
    not reach the page since it started, as seq counts them."""

    fps: float
    age_ms: float | None
    dropped: int


@dataclass
class Stream:
    """One stream on the board: its newest frame, and what was last said of its classes, which a card does not say."""

    frame: Frame
    arrived_ns: int
    semantic: Semantic | None = None
    changes: int = 0
    dropped: int = 0
    arrivals: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=256))
    history: deque[tuple[float, Reading]] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @property
    def signal(self) -> Signal | None:
        """What the source says with a card that it sends in the place of a picture; None with a picture."""
        return self.frame.signal

    def state(self, now_ns: int) -> tuple[State, str | None]:
        """What the source said of itself with its last frame, and why; stalled where it says nothing at all."""
        if now_ns - self.arrived_ns > STALLED_S * 1e9:
            return "stalled", "no frames"
        return (self.signal.state, self.signal.reason) if self.signal else ("up", None)

    def silent_s(self, now_ns: int) -> float:
        """Seconds since the last picture; a card is none."""
        return max(0, now_ns - (self.signal.since_ns if self.signal else self.arrived_ns)) / 1e9

    def reading(self, now_ns: int) -> Reading:
        """The figures of this moment."""
        recent = [(at, age) for at, age in tuple(self.arrivals) if now_ns - at < WINDOW_S * 1e9]
        span_s = (recent[-1][0] - recent[0][0]) / 1e9 if len(recent) > 1 else 0.0
        fps = (len(recent) - 1) / span_s if span_s else 0.0
        age_ms = sum(age for _, age in recent) / len(recent) / 1e6 if recent else None
        return Reading(fps, age_ms, self.dropped)


class Board:
    """What the page knows of the pipeline. `put` is the pipeline's; everything else the page's.

    `kept` gives the streams that the pipeline still has; without it, one is there as long as it is not forgotten.
    """

    def __init__(
        self,
        clock: Callable[[], int] = time.monotonic_ns,
        *,
        kept: Callable[[], Container[str]] | None = None,
    ) -> None:
        self.clock = clock
        self._kept = kept
        self.closed = False
        self.error: Exception | None = None
        self._streams: dict[str, Stream] = {}
        self._changed = Condition()
        self._changes = 0

    def put(self, frame: Frame) -> None:
        """Show a frame as the newest of its stream. Raises what the page itself failed with, if it did."""
        if self.error is not None:
            raise self.error
        now_ns = self.clock()
        with self._changed:
            shown = self._streams.get(frame.stream)
            if shown is None:
                shown = self._streams[frame.stream] = Stream(frame, now_ns)
            elif frame.seq > shown.frame.seq:  # a source that starts anew counts anew
                shown.dropped += frame.seq - shown.frame.seq - 1
            self._changes += 1
            shown.frame, shown.arrived_ns, shown.changes = frame, now_ns, self._changes
            shown.semantic = frame.semantic or shown.semantic
            if shown.signal is None:
                shown.arrivals.append((now_ns, now_ns - frame.captured_ns))
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more comes: who waits for a change is woken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait(self, after: int, timeout_s: float) -> int:
        """Wait for a change later than number `after`; the number of the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes > after or self.closed, timeout_s)
            return self._changes

    def streams(self) -> dict[str, Stream]:
        """By name, in the order of their first frames; those silent for long left out, and those that were removed."""
        now_ns = self.clock()
        with self._changed:
            kept = self._streams if self._kept is None else self._kept()
            self._streams = {
                name: stream
                for name, stream in self._streams.items()
                if name in kept and now_ns - stream.arrived_ns <= FORGOTTEN_S * 1e9
            }
            return dict(self._streams)

    def ready(self) -> bool:
        """Whether any stream has a picture and is up."""
        now_ns = self.clock()
        return any(stream.state(now_ns)[0] == "up" for stream in self.streams().values())

    def sample(self) -> None:
        """Note every stream's figures for the charts; called once a second."""
        now_ns = self.clock()
        for stream in self.streams().values():
            stream.history.append((now_ns / 1e9, stream.reading(now_ns)))
