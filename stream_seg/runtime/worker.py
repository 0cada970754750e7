"""One running stage: its thread, its links, and the counters of its frames."""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from threading import Thread
from typing import Protocol, cast

from stream_seg.config.config import Node
from stream_seg.errors import StageError, StreamSegError, describe_exception
from stream_seg.frame import Age, Frame, Stamp
from stream_seg.per_stream import FrameRate
from stream_seg.runtime.activity import Activity
from stream_seg.runtime.class_shares import ClassShares
from stream_seg.runtime.counters import LabelCounters, SmoothingCounters, SourceCounters, SourceTotals
from stream_seg.runtime.histogram import Ages, Samples
from stream_seg.runtime.receiver import Receiver
from stream_seg.runtime.sender import Sender
from stream_seg.sources.timeline import Continuation, StreamEnd
from stream_seg.stages.base import Frames, traits_of

LOG = logging.getLogger(__name__)
AGE_FEEDBACK = 1024
"""Ages that are kept for a stage while it takes no frame."""
MOST_BEGUN = 128
"""Frames that a stage works on at a time, at most; of older ones that it has not yielded the time is forgotten."""


class Owner(Protocol):
    """Receives the events of a worker, called in the worker's thread."""

    def on_failure(self, worker: Worker, error: StreamSegError, /) -> None: ...

    def stop(self) -> None: ...

    def ending(self) -> bool: ...

    def on_end(self, worker: Worker, /) -> None: ...


class Worker:
    """Runs one stage in a thread of its own and counts its frames. `stage` is the node's, bound to the graph."""

    def __init__(
        self, node: Node, receiver: Receiver, senders: Sequence[Sender], owner: Owner, *, ages: Mapping[str, Ages]
    ) -> None:
        self.node, self.stage = node, node.stage
        self.traits = traits_of(node.stage)
        self.is_source, self.is_output = self.traits.role == "source", self.traits.role == "output"
        self.receiver, self.senders = receiver, senders
        self.taken = self.yielded = 0
        self.placeholders = 0  # frames among `yielded` that stand in for a missing image
        self.failed = False
        self.exhausted = False  # the stage has ended by itself, before the run was to end
        self.added = False  # a source that joined a running graph
        self.finishing = False  # the input has ended
        self.activity = Activity()
        self.source, self.labels, self.smoothing = SourceCounters(), LabelCounters(), SmoothingCounters()
        self.age_feedback: deque[Age] | None = deque(maxlen=AGE_FEEDBACK) if self.traits.age_feedback else None
        self.age_listeners: Mapping[str, deque[Age]] = {}  # of an output: the feedback queues of other stages, by name
        self.duration_ms, self.age_ms, self.overhead_ms = Samples(), Samples(), Samples()
        self.ages = dict(ages)  # by stream that reaches this stage; outputs measure them
        self.class_shares = ClassShares()  # of an output
        self.trace: Callable[[Frame], None] | None = None  # of an output: called with every finished frame
        self.last: Frame | None = None
        self.resumed: Continuation | None = None  # of a source: continues the stream of a removed source
        self._removed_ages: dict[str, Ages] = {}
        self._owner = owner
        self._began_ns = 0  # time at which the stage took its last frame, or asked for the next one
        self._begun: deque[tuple[str, int, int]] = deque(maxlen=MOST_BEGUN)  # stream, number, time of taken frames
        self.first_ns: int | None = None  # time at which the first image was yielded
        self._first_cpu_s = 0.0
        self._rate = FrameRate(window_s=2.0)
        self._last_ns = 0  # time at which the last image was yielded
        self.thread = Thread(target=self._run, name=node.name, daemon=True)

    @property
    def images(self) -> int:
        """Frames yielded that are not placeholders."""
        return self.yielded - self.placeholders

    def totals(self) -> SourceTotals:
        """Return the counts of a source, for a source of the same name that replaces it."""
        return SourceTotals(self.yielded, self.placeholders, self.duration_ms, self.source)

    def end(self) -> StreamEnd | None:
        """Return the end of the source's stream; None if it yielded nothing."""
        last = self.last
        return None if last is None else StreamEnd(last.seq, last.pts * last.time_base, last.captured_ns)

    def resume(self, before: SourceTotals) -> None:
        """Continue the counts of a removed source of the same name."""
        self.yielded, self.placeholders, self.duration_ms = before.yielded, before.placeholders, before.duration_ms
        self.source.resume(before.source)

    def streams(self) -> Collection[str]:
        """Return the streams that reach this stage now: those of sources that were not removed."""
        return self.ages

    def knows_stream(self, stream: str) -> bool:
        """Return whether a stream reaches this stage, or did before its source was removed."""
        return stream in self.ages or stream in self._removed_ages

    def add_stream(self, stream: str, *, deadline_ms: float) -> None:
        """Measure a stream from now on; a stream that was there before continues its counts."""
        ages = self._removed_ages.get(stream) or Ages(deadline_ms)
        ages.last_s = 0.0
        self.ages = {**self.ages, stream: ages}
        self._removed_ages.pop(stream, None)

    def remove_streams(self, streams: Collection[str]) -> None:
        """Stop showing streams; frames under way still count, should the stream come back."""
        self._removed_ages.update({stream: ages for stream, ages in self.ages.items() if stream in streams})
        self.ages = {stream: ages for stream, ages in self.ages.items() if stream not in streams}

    def fps(self) -> float:
        """Return images per second over the last two seconds; 0 after two seconds without one."""
        return self._rate.fps(time.monotonic_ns())

    def mean_fps(self) -> float:
        """Return images per second from the first yielded image to the last."""
        first, last = self.first_ns, self._last_ns
        return (self.images - 1) * 1e9 / (last - first) if first is not None and last > first else 0.0

    def cpu_ms(self) -> float | None:
        """Return the CPU milliseconds of the process per image yielded after the first; None before the second."""
        return 1000 * (time.process_time() - self._first_cpu_s) / (self.images - 1) if self.images > 1 else None

    def _run(self) -> None:
        self.activity.enter("loading")
        try:
            self._work()
        except StreamSegError as error:
            self.failed = True
            self._owner.on_failure(self, error)
        except BaseException as error:  # also a panic of foreign code: any exception ends the stage
            self.failed = True
            about = {"stream": self.last.stream, "seq": self.last.seq} if self.last else {}
            LOG.debug("stage %s", self.node.name, exc_info=True, extra=about)
            failure = StageError(_describe_failure(self.node.name, self.last, error))
            failure.__cause__ = error
            self._owner.on_failure(self, failure)
        finally:
            self.source.end(failed=self.failed)
            for sender in self.senders:
                sender.end()
            if self.is_output and not self.receiver.ended:
                self._owner.stop()
            self.receiver.close()
            self.activity.enter("ended")
            self._owner.on_end(self)

    def _work(self) -> None:
        self._began_ns = time.monotonic_ns()
        with closing(self._frames()) as frames:
            for frame in frames:
                if not isinstance(frame, Frame):
                    raise StageError(f"stage {self.node.name} yielded {type(frame).__name__}, expected a Frame")
                stamped = self._measure(frame)
                self.activity.enter("blocked", frame, place="after")
                accepted = [sender.put(stamped) for sender in self.senders]
                if accepted and not any(accepted):
                    self.activity.enter("finishing", frame, place="after")
                    return
                self.activity.enter("working", frame, place="after")
                self._began_ns = time.monotonic_ns()
            self.exhausted = not self._owner.ending()

    def _frames(self) -> Generator[Frame, None, None]:
        """Yield the frames of the stage; count the value of its generator as missed frames."""
        frames = self.stage(self._input())
        if not isinstance(frames, Iterator):
            raise StageError(f"stage {self.node.name} returned {type(frames).__name__}, expected a generator of frames")
        missed = yield from cast("Generator[Frame, None, Mapping[str, int] | None]", frames)
        self.source.missed.update(missed or {})

    def _input(self) -> Frames:
        """Yield the received frames to the stage, with the ages that outputs reported since the last one."""
        self.activity.enter("waiting")
        for frame in self.receiver.frames():
            self.activity.enter("working", frame)
            self.taken += 1
            self.last = frame
            self._began_ns = time.monotonic_ns()
            self._begun.append((frame.stream, frame.seq, self._began_ns))
            yield frame if self.age_feedback is None else frame.evolve(ages=_drain(self.age_feedback))
            self.activity.enter("waiting")
        self.finishing = True
        self.activity.enter("finishing")

    def begin(self, frame: Frame) -> None:
        """Note the frame that the stage works on from now on; it may have taken later ones already."""
        self.last = frame
        self.activity.enter("working", frame)

    def _end_work(self, frame: Frame) -> int:
        """Return the time at which the stage took a frame that it yields now, and forget the frames before it."""
        for index, (stream, seq, began_ns) in enumerate(self._begun):
            if (stream, seq) == (frame.stream, frame.seq):
                for _ in range(index + 1):
                    self._begun.popleft()
                return began_ns
        return self._began_ns

    def _measure(self, frame: Frame) -> Frame:
        """Count a frame that the stage yielded. Return the frame with the stamp of the stage."""
        now_ns = time.monotonic_ns()
        if self.resumed is not None:
            frame = self.resumed.place(frame)
        self.last = frame
        self.yielded += 1
        if frame.signal is not None:
            self.placeholders += 1
        else:
            self._rate.add(now_ns)
            self._last_ns = now_ns
            if self.first_ns is None:
                self.first_ns, self._first_cpu_s = now_ns, time.process_time()
        began_ns = self._end_work(frame)
        self.duration_ms.add((now_ns - began_ns) / 1e6)
        self._count(frame)
        stamps = (*frame.stamps, Stamp(self.node.name, frame.captured_ns if self.is_source else began_ns, now_ns))
        if self.is_output:
            self.class_shares.add(frame)
            if frame.signal is None:
                self._measure_age(frame, stamps)
        if len(self.senders) > 1:
            frame.share_image()
        stamped = frame.evolve(stamps=stamps)
        if self.trace is not None:
            self.trace(stamped)
        return stamped

    def _count(self, frame: Frame) -> None:
        if self.is_source:
            self.source.add(frame)
        if "labels" in self.traits.produces:
            self.labels.add(frame)
        if "smoothing" in self.traits.produces:
            self.smoothing.add(frame)

    def _measure_age(self, frame: Frame, stamps: Sequence[Stamp]) -> None:
        """Measure the age of a frame that an output has finished, and report it to the stages that want to know."""
        age_ns = stamps[-1].ended_ns - frame.captured_ns
        age_ms, quality_level = age_ns / 1e6, frame.temporal.quality_level if frame.temporal else 0
        self.age_ms.add(age_ms)
        self.overhead_ms.add((age_ns - sum(s.ended_ns - s.began_ns for s in stamps)) / 1e6)
        ages = self.ages.get(frame.stream) or self._removed_ages.get(frame.stream)
        if ages is not None:
            ages.add(age_ms)
        for stamp in stamps:
            if stamp.stage in self.age_listeners:
                self.age_listeners[stamp.stage].append(Age(quality_level, age_ms))


def _drain(ages: deque[Age]) -> tuple[Age, ...]:
    """Remove and return the ages reported so far; outputs may append meanwhile."""
    return tuple(ages.popleft() for _ in range(len(ages)))


def _describe_failure(stage: str, frame: Frame | None, error: BaseException) -> str:
    """Describe an unexpected exception of a stage in one line: stage, frame, error, file and line."""
    at_frame = f" at frame {frame.stream}:{frame.seq}" if frame else ""
    calls = traceback.extract_tb(error.__traceback__)
    place = f" ({calls[-1].filename}, line {calls[-1].lineno})" if calls else ""
    return f"stage {stage} failed{at_frame}: {describe_exception(error)}{place}"
