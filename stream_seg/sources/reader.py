"""Reading a source in a thread of its own, which its owner can leave.

FFmpeg looks at its timeouts only where it waits; a demuxer that spins, or a driver that blocks, answers nobody. A
thread cannot be killed, so its owner leaves it: it ends by itself at its next picture or timeout, or never.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import closing
from threading import Condition, Thread
from typing import NamedTuple

from stream_seg.errors import SourceError, StreamSegError
from stream_seg.sources.picture import Picture, Pictures
from stream_seg.sources.timeline import Pacer

HELD = 8
"""Decoded pictures that wait for their owner; of more, the oldest are dropped. Packets never are: the rest of a group
of pictures could not be decoded."""
LONGEST_S = 2.0
"""Longest pause of a recording that is played as if it were live: a camera silent for longer counts as stalled."""
SLACK_S = 1.0
"""So far such a recording may be late and still catch up; a machine that is too slow plays it slower."""
USUAL_S = 0.04
"""Between its pictures, where they have no duration."""


class Taken(NamedTuple):
    """A picture, and by reason what was lost just before it."""

    picture: Picture
    missed: Counter[str]


class Reader:
    """The pictures of one connection. `make` is called, and its generator runs and is closed, in the thread."""

    def __init__(self, make: Callable[[], Pictures], *, name: str) -> None:
        self._make = make
        self._changed = Condition()
        self._held: deque[Taken] = deque()
        self._left = False
        self._end: StreamSegError | None = None
        self._thread = Thread(target=self._run, name=f"reader {name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def take(self, timeout_s: float) -> Taken | None:
        """The next picture, None where none comes in time. Raises what ended the connection, after its last picture."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._end is not None, timeout_s)
            if self._held:
                return self._held.popleft()
            if self._end is not None:
                raise self._end
            return None

    def leave(self) -> None:
        """Want nothing more. Does not wait: the thread may hang."""
        with self._changed:
            self._left = True
            self._held.clear()

    def _run(self) -> None:
        end: StreamSegError = SourceError("the stream has ended", reason="ended")
        try:
            self._read()
        except StreamSegError as error:
            end = error
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this source's trouble alone
            # Without its text, which may hold the address.
            end = SourceError(f"reading failed with {type(error).__name__}")
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def _read(self) -> None:
        missed: Counter[str] = Counter()
        with closing(self._make()) as pictures:
            for picture in pictures:
                if self._left:
                    return
                if picture is None:
                    missed["decode_error"] += 1
                    continue
                self._hold(Taken(picture, missed))
                missed = Counter()

    def _hold(self, taken: Taken) -> None:
        with self._changed:
            self._held.append(taken)
            if len(self._held) > HELD:
                dropped = self._held.popleft()
                self._held[0].missed.update(dropped.missed)
                self._held[0].missed["late"] += 1
            self._changed.notify_all()


def paced(make: Callable[[], Pictures]) -> Pictures:
    """Play a recording over and over, each picture when it is due, stamped with that time.

    Raises SourceError where no picture of it can be decoded.
    """
    pacer = Pacer(slack_s=SLACK_S)
    while True:
        empty = True
        for picture in make():
            if picture is not None:
                empty = False
                time_s = None if picture.pts is None else float(picture.pts * picture.time_base)
                interval_s = float(picture.duration * picture.time_base) or USUAL_S
                due_s = pacer.due_s(time_s, time.monotonic(), longest_s=LONGEST_S, interval_s=interval_s)
                time.sleep(max(0.0, due_s - time.monotonic()))
                picture = picture._replace(pts=None, captured_ns=time.monotonic_ns())
            yield picture
        if empty:
            raise SourceError("no picture of the recording can be decoded", reason="broken")
