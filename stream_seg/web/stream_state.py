"""The newest frame and the statistics of one stream on the page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from stream_seg.frame import Frame, Semantic, SourceState
from stream_seg.ops.labels import class_shares
from stream_seg.per_stream import FrameRate, LossCounter
from stream_seg.web.schemas import Quality, Series, Source, SourceClass

STALLED_S = 3.0
"""A stream without a frame for this long is stalled, whatever state its source last reported."""
WINDOW_S = 2.0
"""Rates and ages are averages over this window."""
HISTORY_SAMPLES = 120
"""Samples for the charts, one per second."""


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

    def add(self, frame: Frame, version: int, now_ns: int) -> None:
        """Store the newest frame, and count it."""
        self.frame, self.arrived_ns, self.version = frame, now_ns, version
        self.losses.add(frame.seq)
        self.semantic = frame.semantic or self.semantic
        if (temporal := frame.temporal) is not None and temporal.input_size is not None:
            self.quality = Quality(level=temporal.quality_level, every=temporal.every, size=temporal.input_size)
        if frame.signal is None:
            self.rate.add(now_ns)
            self.ages.append((now_ns, now_ns - frame.captured_ns))

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
            width=frame.size[1],
            height=frame.size[0],
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
