"""A live source that disconnects and returns: its frames over all connections, and placeholders while it has none."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from stream_seg.errors import SourceError
from stream_seg.frame import NONE_MISSED, Frame, Signal, read_image
from stream_seg.ops.placeholder import draw_banner, draw_placeholder
from stream_seg.sources.reader import QueuedFrame, Reader
from stream_seg.sources.sample import Sample, sample_image
from stream_seg.sources.timeline import LiveClock
from stream_seg.sources.video import DecodedFrames
from stream_seg.types import Image

LOG = logging.getLogger(__name__)
UPDATE_INTERVAL_S = 0.5
"""Interval of the updates of a source without frames."""
STEADY_S = 0.5
"""A connection that delivered frames for so long resets the retry delays. A camera that accepts connections and drops
them at once does not."""
MAX_HANGING = 3
"""Threads of one source that may hang in foreign code before no further connection is opened."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.25, 30.0
SIZE = (360, 640)
"""(height, width) of a placeholder before the first image; later ones have the size of the last image."""
TICK = Fraction(1, 1000)
"""Seconds; of placeholders."""
LARGEST_PLACEHOLDER = 1280
"""Pixels of the longer side: for a larger camera the placeholder is drawn at this size and enlarged."""


class Timeouts(NamedTuple):
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
Loss: TypeAlias = tuple[SourceError, int | None, float]
"""End of a connection: the error, the time of the last frame (None without any), the seconds to that from the first."""


def follow_source(
    make: Callable[[], DecodedFrames],
    *,
    stream: str,
    timeouts: Timeouts,
    fail_at_start: bool,
    note: Callable[[str], None] = lambda line: None,
) -> Updates:
    """Yield the frames of one connection after another, without end. Raises SourceError only with `fail_at_start`, if
    the first attempt fails. `note` is that of `Reader`."""
    failures, readers = 0, list[Reader]()
    signal = Signal("starting", None, time.monotonic_ns())
    while True:
        readers = [reader for reader in readers if reader.alive]
        if len(readers) < MAX_HANGING:
            signal = replace(signal, attempts=signal.attempts + 1)
            readers.append(Reader(make, name=stream, note=note))
            try:
                error, last_ns, duration_s = yield from _read_connection(readers[-1], signal, timeouts)
            finally:
                readers[-1].abandon()
            if last_ns is None:
                if fail_at_start and signal.state == "starting":
                    raise error
                signal = replace(signal, state="down", reason=error.reason)
            else:
                signal = Signal("stalled" if error.reason == "no data" else "down", error.reason, last_ns)
            if duration_s > STEADY_S:
                failures = 0
            LOG.warning("%s: %s", signal.state, error, extra={"stream": stream})
        else:
            LOG.warning("%d threads hang in the source; waiting for one", len(readers), extra={"stream": stream})
        yield Update(None, signal)
        yield from _wait(signal, retry_delay_s(failures, random.random()))  # noqa: S311 - no secret
        failures += 1


def _read_connection(reader: Reader, outage: Signal, timeouts: Timeouts) -> Generator[Update, None, Loss]:
    """Yield the frames of one connection; `outage` until the first."""
    start_ns = time.monotonic_ns()
    first_ns = last_ns = unchanged_ns = 0
    sample: Sample | None = None
    while True:
        limit_s = timeouts.stall_s if last_ns else timeouts.open_s
        silent_s = (time.monotonic_ns() - (last_ns or start_ns)) / 1e9
        try:
            # Queued frames are taken first: the consumer may have paused, not the source.
            item = reader.take(max(0.0, min(UPDATE_INTERVAL_S, limit_s - silent_s)))
            if item is None and silent_s >= limit_s:
                raise SourceError(f"no frame for {limit_s:g} s", reason="no data")
        except SourceError as error:
            return error, last_ns or None, (last_ns - first_ns) / 1e9
        if item is not None:
            now_ns, connected = time.monotonic_ns(), not last_ns
            first_ns, last_ns = first_ns or now_ns, now_ns
            frozen = False
            if timeouts.frozen_s is not None:
                shown = item.frame.sample or sample_image(read_image(item.frame.image))
                if sample is None or not shown.equals(sample):
                    sample, unchanged_ns = shown, now_ns
                frozen = now_ns - unchanged_ns >= timeouts.frozen_s * 1e9
            yield Update(item, Signal("stalled", "frozen", unchanged_ns) if frozen else None, connected)
        elif not last_ns:
            yield Update(None, outage)


def _wait(signal: Signal, seconds: float) -> Updates:
    """Wait, and yield an update twice a second."""
    end_s = time.monotonic() + seconds
    while (remaining_s := end_s - time.monotonic()) > 0:
        time.sleep(min(UPDATE_INTERVAL_S, remaining_s))
        if remaining_s > UPDATE_INTERVAL_S:
            yield Update(None, signal)


def retry_delay_s(failures: int, randomness: float) -> float:
    """Return the seconds to wait after a failed attempt with `failures` before it: twice as long each time.

    Shorter delays are random in their upper half (`randomness` 0 to 1), so that cameras that failed together do not
    return together. The longest varies by a twentieth only, which keeps an hour of outage below 130 attempts.
    """
    delay_s = FIRST_DELAY_S * 2.0 ** min(failures, 16)
    share = 0.5 if delay_s < LONGEST_DELAY_S else 0.05
    return min(delay_s, LONGEST_DELAY_S) * (1 - share * randomness)


def draw_live_frames(updates: Updates, stream: str) -> Iterator[Frame]:
    """Yield each update as a frame: an image, a frozen image with a banner, or a placeholder. Numbers continue over all
    connections, and times only grow; time 0 is the start of the iteration."""
    start_ns, clock, seq, size = time.monotonic_ns(), LiveClock(), -1, SIZE
    for item, signal, connected in updates:
        if item is None:
            assert signal is not None
            seq, now_ns = seq + 1, time.monotonic_ns()
            elapsed_s = Fraction(now_ns - start_ns, 10**9)
            pts = clock.place(None, TICK, elapsed_s=elapsed_s, interval_s=TICK, connected=False)
            yield Frame(stream, seq, pts, TICK, now_ns, _placeholder(size, stream, signal, now_ns), signal=signal)
            continue
        (image, source_pts, duration, tick, captured_ns, _), missed = item
        time_s, elapsed_s = None if source_pts is None else source_pts * tick, Fraction(captured_ns - start_ns, 10**9)
        pts = clock.place(time_s, tick, elapsed_s=elapsed_s, interval_s=duration * tick, connected=connected)
        seq, size = seq + 1 + sum(missed.values()), image.shape[:2]
        lost = MappingProxyType(dict(missed)) if missed else NONE_MISSED
        if signal is not None:
            since_s = (captured_ns - signal.since_ns) / 1e9
            image = draw_banner(read_image(image), "frozen: the same image for", since_s=since_s)
        yield Frame(stream, seq, pts, tick, captured_ns, image, missed=lost, signal=signal)


def _placeholder(size: tuple[int, int], stream: str, signal: Signal, now_ns: int) -> Image:
    height, width = size
    share = min(1.0, LARGEST_PLACEHOLDER / max(height, width))
    small = max(1, round(height * share)), max(1, round(width * share))
    state = signal.state if signal.reason is None else f"{signal.state}: {signal.reason}"
    image = draw_placeholder(small, stream, state, since_s=(now_ns - signal.since_ns) / 1e9)
    if small == size:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
