"""The newest frame and the statistics of every stream: written by the pipeline, read by the page.

A write swaps in a frame under a lock, so readers never hold up the pipeline.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from threading import Condition

from stream_seg.frame import Frame, Semantic, Signal, State
from stream_seg.per_stream import FrameRate, LossCounter

STALLED_S = 3.0
"""A stream without a frame for this long is stalled, whatever state its source last reported."""
EXPIRY_S = 300.0
"""A stream without a frame for this long is no longer listed."""
WINDOW_S = 2.0
"""Rates and ages are averages over this window."""
HISTORY_SAMPLES = 120
"""Samples for the charts, one per second."""


@dataclass(frozen=True)
class Measurement:
    """Statistics of a stream at one moment: frame rate and mean age over WINDOW_S, frames dropped since the start.

    `dropped` counts gaps in `seq`, so it includes frames lost anywhere between the source and the page.
    """

    fps: float
    age_ms: float | None
    dropped: int


@dataclass
class StreamState:
    """The newest frame of a stream and the last classes, which a placeholder frame does not carry."""

    frame: Frame
    arrived_ns: int
    semantic: Semantic | None = None
    version: int = 0
    losses: LossCounter = field(default_factory=LossCounter)
    rate: FrameRate = field(default_factory=lambda: FrameRate(WINDOW_S))
    ages: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=256))
    history: deque[tuple[float, Measurement]] = field(default_factory=lambda: deque(maxlen=HISTORY_SAMPLES))

    @property
    def signal(self) -> Signal | None:
        """The source state that a placeholder frame carries; None for an image of the source."""
        return self.frame.signal

    def state(self, now_ns: int) -> tuple[State, str | None]:
        """Return the source state of the newest frame and its reason, or "stalled" after STALLED_S without a frame."""
        if now_ns - self.arrived_ns > STALLED_S * 1e9:
            return "stalled", "no frames"
        return (self.signal.state, self.signal.reason) if self.signal else ("up", None)

    def silent_s(self, now_ns: int) -> float:
        """Return the seconds since the last image; placeholder frames do not count."""
        return max(0, now_ns - (self.signal.since_ns if self.signal else self.arrived_ns)) / 1e9

    def measure(self, now_ns: int) -> Measurement:
        """Return the statistics of this moment."""
        ages_ns = [age_ns for at_ns, age_ns in tuple(self.ages) if now_ns - at_ns < WINDOW_S * 1e9]
        age_ms = sum(ages_ns) / len(ages_ns) / 1e6 if ages_ns else None
        return Measurement(self.rate.fps(now_ns), age_ms, self.losses.lost)


class PageState:
    """State shared by the pipeline, which calls `put`, and the page, which calls everything else.

    `current_streams` returns the streams of the running graph. Without it, streams only leave by EXPIRY_S.
    """

    def __init__(
        self,
        clock: Callable[[], int] = time.monotonic_ns,
        *,
        current_streams: Callable[[], Container[str]] | None = None,
    ) -> None:
        self.clock = clock
        self._current_streams = current_streams
        self.closed = False
        self.error: Exception | None = None
        self._streams: dict[str, StreamState] = {}
        self._changed = Condition()
        self._version = 0

    def put(self, frame: Frame) -> None:
        """Store a frame as the newest of its stream. Raise the error that ended the page, if one did."""
        if self.error is not None:
            raise self.error
        now_ns = self.clock()
        with self._changed:
            stream = self._streams.get(frame.stream)
            if stream is None:
                stream = self._streams[frame.stream] = StreamState(frame, now_ns)
            self._version += 1
            stream.frame, stream.arrived_ns, stream.version = frame, now_ns, self._version
            stream.losses.add(frame.seq)
            stream.semantic = frame.semantic or stream.semantic
            if stream.signal is None:
                stream.rate.add(now_ns)
                stream.ages.append((now_ns, now_ns - frame.captured_ns))
            self._changed.notify_all()

    def close(self) -> None:
        """Mark the end of the frames and wake all waiting threads."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait(self, version: int, timeout_s: float) -> int:
        """Wait for a frame newer than `version`, the end or the timeout. Return the current version."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > version or self.closed, timeout_s)
            return self._version

    def streams(self) -> dict[str, StreamState]:
        """Return the streams by name, in order of their first frames, without expired and removed ones."""
        now_ns = self.clock()
        with self._changed:
            current = self._streams if self._current_streams is None else self._current_streams()
            self._streams = {
                name: stream
                for name, stream in self._streams.items()
                if name in current and now_ns - stream.arrived_ns <= EXPIRY_S * 1e9
            }
            return dict(self._streams)

    def is_ready(self) -> bool:
        """Return True if any stream is up."""
        now_ns = self.clock()
        return any(stream.state(now_ns)[0] == "up" for stream in self.streams().values())

    def sample(self) -> None:
        """Append a measurement of every stream to its history; call once a second."""
        now_ns = self.clock()
        for stream in self.streams().values():
            stream.history.append((now_ns / 1e9, stream.measure(now_ns)))
