"""The newest frame and the statistics of every stream: written by the pipeline, read by the page.

A write swaps in a frame under a lock, so readers never hold up the pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from threading import Condition
from typing import TypeAlias

from stream_seg.frame import Frame
from stream_seg.types import Classes
from stream_seg.web.schemas import Series, Source, SourceClasses, ViewSettings
from stream_seg.web.stream_state import StreamState

EXPIRY_S = 300.0
"""A stream without a frame for this long is no longer listed."""
CurrentStreams: TypeAlias = Callable[[], Container[str]] | None
"""Returns the streams of the running graph; None: unknown, streams leave by EXPIRY_S only."""


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
            stream.add(frame, self._version, now_ns)
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
