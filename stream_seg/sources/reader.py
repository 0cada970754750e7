"""Read a source in a thread that its owner can abandon.

FFmpeg checks its timeouts only where it waits: a demuxer that spins or a driver that blocks never returns. A thread
cannot be killed, so its owner abandons it: it ends at its next frame or timeout, or never.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing
from threading import Condition, Thread
from typing import NamedTuple

from stream_seg.errors import SourceError, StreamSegError
from stream_seg.sources.priority import lower_priority
from stream_seg.sources.timeline import Pacer
from stream_seg.sources.video import DecodedFrame, DecodedFrames

QUEUE_LENGTH = 8
"""Decoded frames that wait to be taken; beyond that the oldest are dropped. Packets are never dropped: the rest of
their group of pictures could not be decoded."""
LONGEST_PAUSE_S, SLACK_S, USUAL_S = 2.0, 1.0, 0.04
"""Of a recording that is played as if it were live: its longest pause, since a camera silent for longer counts as
stalled; the delay that it still catches up, since a machine that is too slow plays it slower; and the interval of
frames without a duration."""


class QueuedFrame(NamedTuple):
    """A frame, and the number of frames lost just before it, by reason."""

    frame: DecodedFrame
    missed: Counter[str]


class Reader:
    """Read the frames of one connection: `make` is called, and its generator runs and is closed, in the thread.

    The thread gives way to those of the stages, so that decoding frames that are dropped slows no stage. `note` gets a
    line if the system does not do that.
    """

    def __init__(
        self, make: Callable[[], DecodedFrames], *, name: str, note: Callable[[str], None] = lambda line: None
    ) -> None:
        self._make, self._name, self._note = make, name, note
        self._changed, self._abandoned = Condition(), False
        self._queue: deque[QueuedFrame] = deque()
        self._end: StreamSegError | None = None
        self._thread = Thread(target=self._run, name=f"reader {name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def take(self, timeout_s: float) -> QueuedFrame | None:
        """Return the next frame, None if none comes in time. Raises the connection's error after its last frame."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._end is not None, timeout_s)
            if self._queue:
                return self._queue.popleft()
            if self._end is not None:
                raise self._end
            return None

    def abandon(self) -> None:
        """Let the thread end at its next frame, without waiting: it may hang."""
        with self._changed:
            self._abandoned = True
            self._queue.clear()

    def _run(self) -> None:
        if reason := lower_priority():
            self._note(f"{self._name}: read at the usual priority ({reason})")
        end: StreamSegError = SourceError("the stream has ended", reason="ended")
        missed: Counter[str] = Counter()
        try:
            with closing(self._make()) as frames:
                for frame in frames:
                    if self._abandoned:
                        break
                    if frame is None:
                        missed["decode_error"] += 1
                        continue
                    self._put(QueuedFrame(frame, missed))
                    missed = Counter()
        except StreamSegError as error:
            end = error
        except BaseException as error:  # noqa: BLE001 - whatever it is, it concerns this source only
            # Without its message, which may contain the address.
            end = SourceError(f"reading failed with {type(error).__name__}")
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def _put(self, item: QueuedFrame) -> None:
        with self._changed:
            self._queue.append(item)
            if len(self._queue) > QUEUE_LENGTH:
                dropped = self._queue.popleft()
                self._queue[0].missed.update(dropped.missed)
                self._queue[0].missed["late"] += 1
            self._changed.notify_all()


def play_in_loop(make: Callable[[], DecodedFrames]) -> DecodedFrames:
    """Play a recording over and over: each frame is yielded when it is due, and `captured_ns` is that time.

    Raises SourceError if no frame of it can be decoded.
    """
    pacer = Pacer(slack_s=SLACK_S)
    while True:
        empty = True
        for frame in make():
            if frame is not None:
                empty = False
                time_s = None if frame.pts is None else float(frame.pts * frame.time_base)
                interval_s = float(frame.duration * frame.time_base) or USUAL_S
                due_s = pacer.due_s(time_s, time.monotonic(), longest_s=LONGEST_PAUSE_S, interval_s=interval_s)
                time.sleep(max(0.0, due_s - time.monotonic()))
                frame = frame._replace(pts=None, captured_ns=time.monotonic_ns())
            yield frame
        if empty:
            raise SourceError("no frame of the recording can be decoded", reason="broken")
