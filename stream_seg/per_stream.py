"""State, frame rates and losses of each stream of a stage."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

EXPIRY_FRAMES = 10_000
"""Frames of other streams after which a silent stream, such as a removed camera, expires. Counted in frames, so that
equal frames give equal results; ten cameras produce as many in half a minute."""
SILENCE_S = 2.0
"""Seconds without a frame after which the frame rate is 0."""


class PerStream(Generic[T]):
    """Per-stream state that expires when a stream goes silent."""

    def __init__(self) -> None:
        self._frames = 0
        self._values: dict[str, tuple[int, T]] = {}  # (frame count at the last put, value), longest silent first

    def get(self, stream: str) -> T | None:
        """Return the value of a stream."""
        return self._values.get(stream, (0, None))[1]

    def put(self, stream: str, value: T) -> None:
        """Set the value of a stream; call once for each of its frames."""
        self._frames += 1
        self.drop(stream)
        self._values[stream] = self._frames, value
        silent, (last, _) = next(iter(self._values.items()))
        if self._frames - last >= EXPIRY_FRAMES:
            self.drop(silent)

    def drop(self, stream: str) -> None:
        """Remove the value of a stream."""
        self._values.pop(stream, None)


class FrameRate:
    """Frames per second over the last `window_s` seconds, at least over two frames. One thread adds, any reads."""

    def __init__(self, window_s: float) -> None:
        self._window_ns = window_s * 1e9
        self._times_ns: deque[int] = deque()

    def add(self, now_ns: int) -> None:
        """Add a frame."""
        self._times_ns.append(now_ns)
        while len(self._times_ns) > 2 and self._times_ns[0] < now_ns - self._window_ns:
            self._times_ns.popleft()

    def fps(self, now_ns: int) -> float:
        """Return the frames per second; 0 before the second frame and after SILENCE_S without a frame."""
        times_ns = tuple(self._times_ns)
        if len(times_ns) < 2 or now_ns - times_ns[-1] > SILENCE_S * 1e9:
            return 0.0
        return (len(times_ns) - 1) * 1e9 / max(1, times_ns[-1] - times_ns[0])


class LossCounter:
    """Count the frames lost between a source and here, by the gaps in `Frame.seq`."""

    def __init__(self) -> None:
        self.lost = 0
        self._seq: int | None = None

    def add(self, seq: int) -> None:
        """Add a frame or placeholder frame; a source that was restarted counts from 0 again."""
        if self._seq is not None:
            self.lost += max(0, seq - self._seq - 1)
        self._seq = seq
