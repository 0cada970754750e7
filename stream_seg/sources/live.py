"""A live source that goes away and comes back: its pictures, and word of it while there are none."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from stream_seg.errors import SourceError
from stream_seg.frame import Signal
from stream_seg.sources.backoff import Backoff, Stillness
from stream_seg.sources.picture import Pictures
from stream_seg.sources.reader import Reader, Taken

LOG = logging.getLogger(__name__)
CARD_S = 0.5
"""How often a source that is away says so."""
STEADY_S = 0.5
"""A connection was a good one whose pictures came for so long: a camera that accepts and dies at once is waited for
longer."""
MOST_LEFT = 3
"""Threads of one source that may hang in foreign code before nothing more is opened."""


@dataclass(frozen=True)
class Patience:
    """Seconds: until opening is given up from outside, without a picture, of the same picture (None: for ever)."""

    open_s: float
    stall_s: float
    frozen_s: float | None


class News(NamedTuple):
    """A picture, word that there is none, or both: a picture that does not move. `fresh`: the first of a connection."""

    taken: Taken | None
    signal: Signal | None
    fresh: bool = False


Supply: TypeAlias = Generator[News, None, None]


def supply(make: Callable[[], Pictures], *, stream: str, patience: Patience, must_begin: bool) -> Supply:
    """Pictures as long as anybody wants them, from one connection after another.

    Raises SourceError where `must_begin` and the first attempt fails; after that never.
    """
    backoff, left = Backoff(random.random), list[Reader]()
    signal = Signal("starting", None, time.monotonic_ns())
    while True:
        left = [reader for reader in left if reader.alive]
        if len(left) < MOST_LEFT:
            signal = replace(signal, attempts=signal.attempts + 1)
            left.append(Reader(make, name=stream))
            try:
                yield from _connection(left[-1], signal, patience)
            except _LostError as lost:
                if must_begin and signal.state == "starting" and lost.last_ns is None:
                    raise lost.error from lost.error.__cause__
                if lost.lived_s > STEADY_S:
                    backoff.steady()
                signal = _away(signal, lost)
                LOG.warning("%s: %s", signal.state, lost.error, extra={"stream": stream})
            finally:
                left[-1].leave()
        else:
            LOG.warning("%d threads hang in the source; waiting for one", len(left), extra={"stream": stream})
        yield News(None, signal)
        yield from _waited(signal, backoff.failed())


class _LostError(Exception):
    """A connection came to its end; `last_ns` is the time of its last picture, None where it never gave one, `lived_s`
    the seconds from its first picture to that."""

    def __init__(self, error: SourceError, last_ns: int | None, lived_s: float) -> None:
        self.error, self.last_ns, self.lived_s = error, last_ns, lived_s


def _away(before: Signal, lost: _LostError) -> Signal:
    if lost.last_ns is None:
        return replace(before, state="down", reason=lost.error.reason)
    return Signal("stalled" if lost.error.reason == "no data" else "down", lost.error.reason, lost.last_ns)


def _connection(reader: Reader, away: Signal, patience: Patience) -> Supply:
    """One connection until it breaks, falls silent or never begins: then _LostError."""
    began_ns, first_ns, last_ns, still = time.monotonic_ns(), None, None, Stillness()
    while True:
        limit_s = patience.open_s if last_ns is None else patience.stall_s
        silent_s = (time.monotonic_ns() - (last_ns or began_ns)) / 1e9
        try:
            # What waits is taken first: the silence may be that of who takes, not the source's.
            taken = reader.take(max(0.0, min(CARD_S, limit_s - silent_s)))
            if taken is None and silent_s >= limit_s:
                raise SourceError(f"no picture for {limit_s:g} s", reason="no data")
        except SourceError as error:
            lived_s = 0.0 if first_ns is None or last_ns is None else (last_ns - first_ns) / 1e9
            raise _LostError(error, last_ns, lived_s) from error
        if taken is not None:
            now_ns, fresh = time.monotonic_ns(), last_ns is None
            first_ns = first_ns or now_ns
            since_ns, last_ns = still.since(taken.picture.image, now_ns), now_ns
            frozen = patience.frozen_s is not None and now_ns - since_ns >= patience.frozen_s * 1e9
            yield News(taken, Signal("stalled", "frozen", since_ns) if frozen else None, fresh)
        elif last_ns is None:
            yield News(None, away)


def _waited(signal: Signal, seconds: float) -> Supply:
    """Word of the source twice a second until the time is over."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(CARD_S, left_s))
        if left_s > CARD_S:
            yield News(None, signal)
