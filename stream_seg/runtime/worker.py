"""One stage at work, in a thread of its own, and what is known of its frames."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from threading import Thread
from typing import Protocol, cast

from stream_seg.config.graph_file import Node
from stream_seg.errors import StageError, StreamSegError
from stream_seg.frame import Age, Frame, Stamp
from stream_seg.runtime.counters import SegmentTally, SmoothTally, SourceTally
from stream_seg.runtime.handover import End, GoingOn, Left
from stream_seg.runtime.histogram import Ages, Samples
from stream_seg.runtime.link import Receiver, Sender
from stream_seg.stages.base import Frames
from stream_seg.stages.registry import SINKS, SOURCES

LOG = logging.getLogger(__name__)


class Owner(Protocol):
    """Who is told of what becomes of a stage; from the thread of that stage."""

    def failed(self, task: Task, error: StreamSegError, /) -> None: ...

    def stop(self) -> None: ...

    def ended(self, task: Task, /) -> None: ...


class Task:
    """One stage at work: its thread, its links, and what is known of its frames."""

    def __init__(
        self, node: Node, receiver: Receiver, senders: Sequence[Sender], owner: Owner, *, ages: Mapping[str, Ages]
    ) -> None:
        self.node = node
        self.is_source, self.is_sink = node.kind in SOURCES, node.kind in SINKS
        self.receiver, self.senders = receiver, senders
        self.taken = self.yielded = 0
        self.cards = 0  # those of the frames yielded that stand in the place of a picture
        self.failed = False
        self.added = False  # a source that joined a running graph
        self.finishing = False  # its input has ended
        self.source, self.segment, self.smooth = SourceTally(), SegmentTally(), SmoothTally()
        of_kind: dict[str, SegmentTally | SmoothTally] = {"segment": self.segment, "smooth": self.smooth}
        self._tally = self.source if self.is_source else of_kind.get(node.kind)
        self.heard: deque[Age] | None = None  # of a segment stage: what the outputs tell of its frames
        self.tell: Mapping[str, deque[Age]] = {}  # of an output: what segment stages hear, by name
        self.duration_ms, self.age_ms, self.overhead_ms = Samples(), Samples(), Samples()
        self.ages = dict(ages)  # of an output: by stream
        self.trace: Callable[[Frame], None] | None = None  # of an output: told of every frame that is done with
        self.last: Frame | None = None
        self.going_on: GoingOn | None = None  # of a source: with a stream that another one left
        self._gone_ages: dict[str, Ages] = {}
        self._owner = owner
        self._began_ns = 0
        self.first_ns: int | None = None  # when the first picture was yielded
        self._first_cpu_s = 0.0
        self._times: deque[int] = deque(maxlen=60)
        self.thread = Thread(target=self._run, name=node.name, daemon=True)

    @property
    def pictures(self) -> int:
        """The frames yielded that are no cards."""
        return self.yielded - self.cards

    def left(self) -> Left:
        """What a source has counted so far."""
        return Left(self.yielded, self.cards, self.duration_ms, self.source)

    def end(self) -> End | None:
        """Where a source leaves its stream; None where it gave nothing."""
        return None if self.last is None else End.of(self.last)

    def carry_on(self, before: Left) -> None:
        """Count on from where a source of the same name left off."""
        self.yielded, self.cards, self.duration_ms = before.yielded, before.cards, before.duration_ms
        self.source.carry_on(before.source)

    def streams(self) -> Collection[str]:
        """Those that reach it now: of sources that were not removed."""
        return self.ages

    def take_in(self, stream: str, *, deadline_ms: float) -> None:
        """Reckon with a stream from now on; the ages of one that was there before count on."""
        ages = self._gone_ages.get(stream) or Ages(deadline_ms)
        ages.last_s = 0.0
        self.ages = {**self.ages, stream: ages}
        self._gone_ages.pop(stream, None)

    def forget(self, streams: Collection[str]) -> None:
        """Reckon with these streams no more; what of them is on its way still counts, should they come back."""
        self._gone_ages.update({stream: ages for stream, ages in self.ages.items() if stream in streams})
        self.ages = {stream: ages for stream, ages in self.ages.items() if stream not in streams}

    def fps(self) -> float:
        """Frames per second over the last 60 yielded; 0 once none came for two seconds."""
        times = tuple(self._times)
        if len(times) < 2 or time.monotonic_ns() - times[-1] > 2_000_000_000:
            return 0.0
        return (len(times) - 1) * 1e9 / max(1, times[-1] - times[0])

    def mean_fps(self) -> float:
        """Pictures per second from the first one yielded to the last."""
        first, last = self.first_ns, self._times[-1] if self._times else 0
        return (self.pictures - 1) * 1e9 / (last - first) if first is not None and last > first else 0.0

    def cpu_ms(self) -> float | None:
        """CPU milliseconds of the whole process per picture yielded after the first; None before the second."""
        return 1000 * (time.process_time() - self._first_cpu_s) / (self.pictures - 1) if self.pictures > 1 else None

    def _run(self) -> None:
        try:
            self._work()
        except StreamSegError as error:
            self.failed = True
            self._owner.failed(self, error)
        except BaseException as error:  # a panic of foreign code too: whatever it is ends the stage
            self.failed = True
            about = {"stream": self.last.stream, "seq": self.last.seq} if self.last else {}
            LOG.debug("stage %s", self.node.name, exc_info=True, extra=about)
            where = f" at frame {self.last.stream}:{self.last.seq}" if self.last else ""
            said = " ".join(f"{type(error).__name__}: {error}".split())
            self._owner.failed(self, StageError(f"stage {self.node.name} failed{where}: {said}"))
        finally:
            self.source.end(failed=self.failed)
            for sender in self.senders:
                sender.end()
            if self.is_sink and not self.receiver.ended:
                self._owner.stop()
            self.receiver.close()
            self._owner.ended(self)

    def _work(self) -> None:
        self._began_ns = time.monotonic_ns()
        with closing(self._yielded()) as frames:
            for frame in frames:
                stamped = self._note(frame)
                wanted = [sender.put(stamped) for sender in self.senders]
                if wanted and not any(wanted):
                    return
                self._began_ns = time.monotonic_ns()

    def _yielded(self) -> Generator[Frame, None, None]:
        frames = self.node.stage(self._watched(self.receiver.frames()))
        lost = yield from cast("Generator[Frame, None, Mapping[str, int] | None]", frames)
        self.source.missed.update(lost or {})

    def _watched(self, frames: Frames) -> Frames:
        for frame in frames:
            self.taken += 1
            self.last = frame
            self._began_ns = time.monotonic_ns()
            yield frame if self.heard is None else replace(frame, ages=_drained(self.heard))
        self.finishing = True

    def _note(self, frame: Frame) -> Frame:
        now = time.monotonic_ns()
        took_ns = now - self._began_ns
        if self.going_on is not None:
            frame = self.going_on.placed(frame)
        self.last = frame
        self.yielded += 1
        if frame.signal is not None:
            self.cards += 1
        else:
            self._times.append(now)
            if self.first_ns is None:
                self.first_ns, self._first_cpu_s = now, time.process_time()
        self.duration_ms.add(took_ns / 1e6)
        if self._tally is not None:
            self._tally.note(frame)
        began_ns = frame.captured_ns if self.is_source else self._began_ns
        stamps = (*frame.stamps, Stamp(self.node.name, began_ns, now))
        if self.is_sink and frame.signal is None:
            self._note_age(frame, stamps)
        if len(self.senders) > 1:
            frame.image.flags.writeable = False  # shared from here on: who draws on it copies it
        stamped = replace(frame, stamps=stamps)
        if self.trace is not None:
            self.trace(stamped)
        return stamped

    def _note_age(self, frame: Frame, stamps: Sequence[Stamp]) -> None:
        """Note how old a frame is when an output is done with it, and tell the segment stages that it went through."""
        age_ns = stamps[-1].ended_ns - frame.captured_ns
        age_ms, rung = age_ns / 1e6, frame.temporal.rung if frame.temporal else 0
        self.age_ms.add(age_ms)
        self.overhead_ms.add((age_ns - sum(s.ended_ns - s.began_ns for s in stamps)) / 1e6)
        ages = self.ages.get(frame.stream) or self._gone_ages.get(frame.stream)
        if ages is not None:
            ages.add(age_ms)
        for stamp in stamps:
            if stamp.stage in self.tell:
                self.tell[stamp.stage].append(Age(rung, age_ms))


def _drained(heard: deque[Age]) -> tuple[Age, ...]:
    """All that was heard so far; outputs may go on to tell."""
    return tuple(heard.popleft() for _ in range(len(heard)))
