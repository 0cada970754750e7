"""The files that `write` and `records` record to: one for all streams or one for each, in parts if they rotate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol

from stream_seg.errors import OutputError
from stream_seg.files.templates import STREAM, TIME, complete_template, fill_stream, names_new_files
from stream_seg.files.writing import make_folder, map_write_errors
from stream_seg.frame import Frame
from stream_seg.sources.timeline import LEAP_S, StreamClock
from stream_seg.stages.base import Context
from stream_seg.stages.growing_file import GrowingFile
from stream_seg.stages.keeper import Keeper
from stream_seg.stages.rotation import FileNames, Rotation, prune

TICK = Fraction(1, 1_000_000)
"""Seconds: the resolution of the length of a part."""


class Content(Protocol):
    """Frames in one growing file."""

    def add(self, frame: Frame) -> None:
        """Write a frame."""

    def close(self) -> None:
        """Write what completes the file."""

    def extent(self) -> str:
        """Return how much the file holds up to its last `commit`, such as "43 frames (1.43 s)"; "" for nothing."""


class Recorder:
    """The files of an output. A context manager; after a run without an error, its end gives every file its name.

    After an error of the output or of the run, a file gets its name only if the last frame of its stream is in it
    (`Context.complete`). Every other file keeps its partial name, and the error names it as truncated. `begin` returns
    the content of a file that begins with a frame.
    """

    def __init__(
        self, path: Path, begin: Callable[[GrowingFile, Frame], Content], *, rotation: Rotation, context: Context
    ) -> None:
        self._template = complete_template(path, live=False, overwrite=context.overwrite, rotates=rotation.in_parts)
        self._begin, self._rotation, self._context = begin, rotation, context
        self._keeper = Keeper(self._fail, name=context.name)
        self._parts: dict[Path, _Part] = {}  # the growing file of each template, whose {stream} is filled
        self._names: dict[Path, FileNames] = {}  # by template
        self._announced: set[Path] = set()
        self._templates: dict[str, Path] = {}  # by stream
        self._clocks: dict[str, StreamClock] = {}
        self._failure: OutputError | None = None

    def __enter__(self) -> Recorder:
        with ExitStack() as resources:
            resources.enter_context(self._keeper)
            if STREAM in self._template.name:
                make_folder(self._template.parent, self._template)
            else:
                self._open(self._template)  # an output that cannot be written is an error before the first frame
            resources.pop_all()
        return self

    def add(self, frame: Frame) -> None:
        """Write a frame to the file of its stream, or to the next one if that is full. Raises OutputError."""
        if self._failure is not None:
            raise self._failure
        at = self._place(frame)
        template = self._templates.get(frame.stream)
        if template is None:
            template = self._templates[frame.stream] = fill_stream(self._template, frame.stream)
        part = self._parts.get(template)
        if part is not None and self._rotation.is_full(part.length_s(frame.stream, at), part.file.size):
            del self._parts[template]
            self._keeper.run(partial(self._finish, part))
            part = None
        part = part or self._open(template)
        part.add(frame, at, self._begin)
        if template not in self._announced:
            self._announced.add(template)
            if TIME in template.name:
                self._context.announce(f"recording to {part.file.path}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        broken = error is not None and not isinstance(error, GeneratorExit)
        for part in self._parts.values():
            truncated = (broken or self._failure or self._context.failed()) and not part.is_complete()
            self._keeper.run(part.truncate if truncated else partial(self._finish, part))
        self._keeper.run(self._prune)
        self._keeper.__exit__(kind, error, trace)
        if self._failure is not None and not broken:
            raise self._failure

    def _place(self, frame: Frame) -> int:
        """Return the time of a frame in ticks; 0 if no part ends by its time."""
        if self._rotation.segment_s is None:
            return 0
        clock = self._clocks.setdefault(frame.stream, StreamClock(leap_s=LEAP_S))
        return clock.place(frame.pts * frame.time_base, TICK)

    def _open(self, template: Path) -> _Part:
        """Create the next file of a template."""
        path = self._names.setdefault(template, FileNames(template)).next()
        replaces = self._context.overwrite and not names_new_files(template)
        part = self._parts[template] = _Part(GrowingFile(path, overwrite=replaces), self._context)
        self._keeper.add(part.file)
        self._keeper.run(self._prune)
        return part

    def _finish(self, part: _Part) -> None:
        try:
            part.finish()
        except OutputError as error:
            part.truncate()
            self._fail(error)

    def _prune(self) -> None:
        if self._rotation.keep_gb is not None:
            prune([*self._names], self._rotation.keep_gb * 1e9)

    def _fail(self, error: OutputError) -> None:
        """End the run with the first error of a file. Called in any thread."""
        self._failure = self._failure or error
        self._context.fail(error)


class _Part:
    """A growing file with its content, which begins with the first frame."""

    def __init__(self, file: GrowingFile, context: Context) -> None:
        self.file, self._context = file, context
        self._content: Content | None = None
        self._begins: dict[str, int] = {}  # by stream: time of its first frame, in ticks
        self._last: dict[str, int] = {}  # by stream: number of its last frame

    def length_s(self, stream: str, at: int) -> float:
        """Return how far a time of a stream is behind its first frame in this part, in seconds."""
        return float((at - self._begins.get(stream, at)) * TICK)

    def add(self, frame: Frame, at: int, begin: Callable[[GrowingFile, Frame], Content]) -> None:
        """Write a frame at a time in ticks. Raises OutputError."""
        with map_write_errors(self.file.path):
            if self._content is None:
                self._content = begin(self.file, frame)
            self._content.add(frame)
        self.file.commit()
        self._begins.setdefault(frame.stream, at)
        self._last[frame.stream] = frame.seq

    def is_complete(self) -> bool:
        """Return whether the part has the last frame of each of its streams."""
        return (
            bool(self._last)
            and self.file.failure is None
            and all(self._context.complete(*last) for last in self._last.items())
        )

    def finish(self) -> None:
        """Complete the file and give it its name. Raises OutputError."""
        if self._content is None:
            self.file.discard()
            return
        with map_write_errors(self.file.path):
            self._content.close()
            self.file.commit()
            self.file.finish()

    def truncate(self) -> None:
        """Close the file under its partial name, and name it in the error of the run, unless it is empty or whole."""
        extent = ""
        if self._content is not None:
            with suppress(OutputError), map_write_errors(self.file.path):
                self._content.close()
                self.file.commit()
            extent = self._content.extent()
        if not extent:
            self.file.discard()
        elif self.file.keep() and not self.file.whole:
            self._context.truncated(f"{self.file.name} after {extent}")
