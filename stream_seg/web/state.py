"""The newest frame and the statistics of every stream: written by the pipeline, read by the page.

A write swaps in a frame under a lock, so readers never hold up the pipeline.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Condition
from typing import TypeAlias

from stream_seg.frame import Frame, Semantic, SourceState
from stream_seg.ops.labels import class_shares
from stream_seg.per_stream import FrameRate, LossCounter
from stream_seg.types import Classes
from stream_seg.web.schemas import Quality, Series, Source, SourceClass, SourceClasses, ViewSettings

STALLED_S = 3.0
"""A stream without a frame for this long is stalled, whatever state its source last reported."""
EXPIRY_S = 300.0
"""A stream without a frame for this long is no longer listed."""
WINDOW_S = 2.0
"""Rates and ages are averages over this window."""
HISTORY_SAMPLES = 120
"""Samples for the charts, one per second."""
CurrentStreams: TypeAlias = Callable[[], Container[str]] | None
"""Returns the streams of the running graph; None: unknown, streams leave by EXPIRY_S only."""


@dataclass
class StreamState:
    """The newest frame of a stream, and the last classes and quality, which a placeholder frame does not carry."""

    frame: Frame
    arrived_ns: int
    semantic: Semantic | None = None
    quality: Quality | None = None
    version: int = 0
    losses: LossCounter = field(default_factory=LossCounter)
    rate: FrameRate = field(default_factory=lambda: FrameRate(WINDOW_S))
    ages: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=256))
    history: deque[tuple[float, Source]] = field(default_factory=lambda: deque(maxlen=HISTORY_SAMPLES))

    def describe(self, now_ns: int, *, page_ended: bool, source_ended: bool) -> Source:
        """Return the state of the source and its statistics.

        The state is "ended" once the page gets no more frames. Without frames for STALLED_S it is "ended" if the source
        is, else "stalled".
        """
        frame = self.frame
        signal = frame.signal
        status: tuple[SourceState, str | None] = (signal.state, signal.reason) if signal else ("up", None)
        silent = now_ns - self.arrived_ns > STALLED_S * 1e9
        if page_ended or (silent and source_ended):
            status = "ended", None
        elif silent:
            status = "stalled", "no frames"
        silent_ns = max(0, now_ns - (signal.since_ns if signal else self.arrived_ns))
        ages_ns = [age_ns for at_ns, age_ns in tuple(self.ages) if now_ns - at_ns < WINDOW_S * 1e9]
        engine = self.semantic.engine if self.semantic else None
        return Source(
            id=frame.stream,
            state=status[0],
            reason=status[1],
            placeholder=signal is not None,
            since_s=round(silent_ns / 1e9, 3),
            seq=frame.seq,
            width=frame.image.shape[1],
            height=frame.image.shape[0],
            fps=round(self.rate.fps(now_ns), 2),
            age_ms=round(sum(ages_ns) / len(ages_ns) / 1e6, 2) if ages_ns else None,
            dropped=self.losses.lost,
            engine=f"{engine.network}, {engine.backend} {engine.precision} on {engine.device}" if engine else None,
            quality=self.quality,
        )

    def measure_classes(self) -> list[SourceClass]:
        """Return the classes with their share of the newest frame."""
        if self.semantic is None:
            return []
        classes, semantic = self.semantic.classes, self.frame.semantic
        shares = class_shares(semantic.labels, classes).tolist() if semantic else [0.0] * len(classes)
        return [
            SourceClass(name=name, colour="#" + bytes(colour).hex(), share=round(share, 4))
            for name, colour, share in zip(classes.names, classes.colours, shares, strict=True)
        ]

    def collect_series(self, now_s: float) -> Series:
        """Return the history for the charts."""
        history = tuple(self.history)
        totals = [source.dropped for _, source in history]
        return Series(
            id=self.frame.stream,
            seconds_ago=[round(now_s - at_s, 1) for at_s, _ in history],
            fps=[source.fps for _, source in history],
            age_ms=[source.age_ms for _, source in history],
            dropped=[after - before for before, after in pairwise(totals[:1] + totals)],
        )


class PageState:
    """State shared by the pipeline, which calls `put`, and the page, which calls everything else.

    `opacity` is the initial one, and `shown` are the classes that are not hidden at first; None for all. `stalls`
    returns a line for each stage that makes no progress.
    """

    def __init__(
        self,
        current_streams: CurrentStreams = None,
        source_ended: Callable[[str], bool] = lambda stream: False,
        *,
        opacity: float = 0.5,
        shown: Sequence[str] | None = None,
        stalls: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clock, self._current_streams, self._source_ended = clock, current_streams, source_ended
        self.settings, self.stalls = ViewSettings(opacity=opacity, hidden=[]), stalls
        self._shown, self._known = shown, set[Classes]()
        self.ended = self.closed = False
        self.error: Exception | None = None
        self._streams: dict[str, StreamState] = {}
        self._changed = Condition()
        self._version = 0

    def put(self, frame: Frame) -> None:
        """Store a frame as the newest of its stream.

        Raise the error that ended the page, if one did, and ConfigError for an unknown class to show.
        """
        self.check()
        if frame.semantic is not None and frame.semantic.classes not in self._known:
            self._hide_others(frame.semantic.classes)
        now_ns = self.clock()
        with self._changed:
            stream = self._streams.get(frame.stream)
            if stream is None:
                stream = self._streams[frame.stream] = StreamState(frame, now_ns)
            self._version += 1
            stream.frame, stream.arrived_ns, stream.version = frame, now_ns, self._version
            stream.losses.add(frame.seq)
            stream.semantic = frame.semantic or stream.semantic
            if (temporal := frame.temporal) is not None and temporal.input_size is not None:
                stream.quality = Quality(level=temporal.quality_level, every=temporal.every, size=temporal.input_size)
            if frame.signal is None:
                stream.rate.add(now_ns)
                stream.ages.append((now_ns, now_ns - frame.captured_ns))
            self._changed.notify_all()

    def _hide_others(self, classes: Classes) -> None:
        """Hide the classes of a new network that are not to be shown."""
        self._known.add(classes)
        visible = classes.select(self._shown, where="serve.classes")
        hidden = [name for label, name in enumerate(classes.names) if not visible[label]]
        if hidden:
            self.settings = self.settings.model_copy(update={"hidden": sorted({*self.settings.hidden, *hidden})})

    def check(self) -> bool:
        """Return True. Raise the error that ended the page, if one did."""
        if self.error is not None:
            raise self.error
        return True

    def end(self) -> None:
        """Mark the end of the frames: every stream has ended."""
        self.ended = True

    def close(self) -> None:
        """Mark the end of the page and wake all waiting threads."""
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
                if name in current
                and (now_ns - stream.arrived_ns <= EXPIRY_S * 1e9 or self.ended or self._source_ended(name))
            }
            return dict(self._streams)

    def list_sources(self) -> list[Source]:
        """Return the state and the statistics of every listed stream."""
        now_ns = self.clock()
        return [
            stream.describe(now_ns, page_ended=self.ended, source_ended=self._source_ended(name))
            for name, stream in self.streams().items()
        ]

    def list_classes(self) -> list[SourceClasses]:
        """Return the classes of every stream with their share of its newest frame."""
        return [SourceClasses(id=name, classes=stream.measure_classes()) for name, stream in self.streams().items()]

    def list_class_names(self) -> list[str]:
        """Return the class names of all streams without duplicates."""
        semantics = [stream.semantic for stream in self.streams().values()]
        return list(dict.fromkeys(name for semantic in semantics if semantic for name in semantic.classes.names))

    def list_series(self) -> list[Series]:
        """Return the statistics of the last two minutes of every stream."""
        now_s = self.clock() / 1e9
        return [stream.collect_series(now_s) for stream in self.streams().values()]

    def is_ready(self) -> bool:
        """Return True if any stream is up."""
        return any(source.state == "up" for source in self.list_sources())

    def sample(self) -> None:
        """Append the statistics of every stream to its history; call once a second."""
        now_s, streams = self.clock() / 1e9, self.streams()
        for source in self.list_sources():
            if source.id in streams:
                streams[source.id].history.append((now_s, source))
