"""A live source that disconnects and returns: its frames, and status updates while it has none."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from stream_seg.errors import SourceError
from stream_seg.frame import Signal
from stream_seg.sources.backoff import Backoff, FreezeDetector
from stream_seg.sources.decoded_frame import DecodedFrames
from stream_seg.sources.reader import QueuedFrame, Reader

LOG = logging.getLogger(__name__)
UPDATE_INTERVAL_S = 0.5
"""Interval of the updates of a source without frames."""
STEADY_S = 0.5
"""A connection that delivered frames for so long resets the retry delays. A camera that accepts connections and drops
them at once does not."""
MAX_HANGING = 3
"""Threads of one source that may hang in foreign code before no further connection is opened."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds until opening is abandoned, until a stream without a frame counts as stalled, and until a stream that
    repeats one image counts as frozen (None: never)."""

    open_s: float
    stall_s: float
    frozen_s: float | None


class Update(NamedTuple):
    """A frame, a signal that there is none, or both: a frozen image. `connected` marks a connection's first frame."""

    item: QueuedFrame | None
    signal: Signal | None
    connected: bool = False


Updates: TypeAlias = Generator[Update, None, None]


def follow_source(
    make: Callable[[], DecodedFrames], *, stream: str, timeouts: Timeouts, fail_at_start: bool
) -> Updates:
    """Yield the frames of one connection after another, without end.

    Raises SourceError only with `fail_at_start`, if the first attempt fails.
    """
    backoff, readers = Backoff(random.random), list[Reader]()
    signal = Signal("starting", None, time.monotonic_ns())
    while True:
        readers = [reader for reader in readers if reader.alive]
        if len(readers) < MAX_HANGING:
            signal = replace(signal, attempts=signal.attempts + 1)
            readers.append(Reader(make, name=stream))
            try:
                yield from _read_connection(readers[-1], signal, timeouts)
            except _ConnectionLostError as lost:
                if fail_at_start and signal.state == "starting" and lost.last_ns is None:
                    raise lost.error from lost.error.__cause__
                if lost.duration_s > STEADY_S:
                    backoff.reset()
                signal = _outage_signal(signal, lost)
                LOG.warning("%s: %s", signal.state, lost.error, extra={"stream": stream})
            finally:
                readers[-1].abandon()
        else:
            LOG.warning("%d threads hang in the source; waiting for one", len(readers), extra={"stream": stream})
        yield Update(None, signal)
        yield from _wait(signal, backoff.next_wait_s())


class _ConnectionLostError(Exception):
    """A connection ended: `last_ns` is the time of its last frame, None without any, `duration_s` the time from its
    first frame to that."""

    def __init__(self, error: SourceError, last_ns: int | None, duration_s: float) -> None:
        self.error, self.last_ns, self.duration_s = error, last_ns, duration_s


def _outage_signal(before: Signal, lost: _ConnectionLostError) -> Signal:
    if lost.last_ns is None:
        return replace(before, state="down", reason=lost.error.reason)
    return Signal("stalled" if lost.error.reason == "no data" else "down", lost.error.reason, lost.last_ns)


def _read_connection(reader: Reader, outage: Signal, timeouts: Timeouts) -> Updates:
    """Yield the frames of one connection; `outage` until the first. Raises _ConnectionLostError at its end."""
    start_ns, first_ns, last_ns, freeze = time.monotonic_ns(), None, None, FreezeDetector()
    while True:
        limit_s = timeouts.open_s if last_ns is None else timeouts.stall_s
        silent_s = (time.monotonic_ns() - (last_ns or start_ns)) / 1e9
        try:
            # Queued frames are taken first: the consumer may have paused, not the source.
            item = reader.take(max(0.0, min(UPDATE_INTERVAL_S, limit_s - silent_s)))
            if item is None and silent_s >= limit_s:
                raise SourceError(f"no frame for {limit_s:g} s", reason="no data")
        except SourceError as error:
            duration_s = 0.0 if first_ns is None or last_ns is None else (last_ns - first_ns) / 1e9
            raise _ConnectionLostError(error, last_ns, duration_s) from error
        if item is not None:
            now_ns, connected = time.monotonic_ns(), last_ns is None
            first_ns = first_ns or now_ns
            since_ns, last_ns = freeze.unchanged_since_ns(item.frame.image, now_ns), now_ns
            frozen = timeouts.frozen_s is not None and now_ns - since_ns >= timeouts.frozen_s * 1e9
            yield Update(item, Signal("stalled", "frozen", since_ns) if frozen else None, connected)
        elif last_ns is None:
            yield Update(None, outage)


def _wait(signal: Signal, seconds: float) -> Updates:
    """Wait, and yield an update twice a second."""
    end_s = time.monotonic() + seconds
    while (remaining_s := end_s - time.monotonic()) > 0:
        time.sleep(min(UPDATE_INTERVAL_S, remaining_s))
        if remaining_s > UPDATE_INTERVAL_S:
            yield Update(None, signal)
