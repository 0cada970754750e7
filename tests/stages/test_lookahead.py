"""Key frames that are segmented ahead: the same results, while the network works on later frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from threading import Barrier, Event
from typing import ClassVar

import numpy as np
import pytest

from stream_seg.errors import SourceError
from stream_seg.frame import Frame, Semantic, Signal
from stream_seg.keyframes.keyframes import KeyFrames
from stream_seg.stages.base import Context, Frames, Traits
from stream_seg.stages.lookahead import MOST_FRAMES, Lookahead
from stream_seg.stages.workers import Workers
from stream_seg.types import Image
from tests.keyframes.test_keyframes import drive, segment
from tests.support.fake_stages import Camera, Ledger, make_chain, run_graph


@dataclass
class Bound:
    """A filter that keeps its context."""

    run: Callable[[Frames], Frames]
    context: Context = field(default_factory=Context)
    traits: ClassVar = Traits()

    def bind(self, context: Context) -> Bound:
        self.context = context
        return self

    def __call__(self, frames: Frames) -> Frames:
        return self.run(frames)


Results = list[tuple[str, int, int, bytes]]


def run(frames: list[Frame], every: int, *, requests: int = 0) -> tuple[Results, list[bytes]]:
    """Return stream, number, age and scores of each frame, and the images on which the network ran; with `requests`
    of them ahead."""
    images: list[bytes] = []

    def infer(image: Image) -> Callable[[], Semantic]:
        images.append(image.tobytes())
        return lambda: segment(image)

    key_frames, results = KeyFrames(None), []
    with Workers(max(1, requests), name="test") as workers:
        ahead = Lookahead(infer, workers, every=every, requests=requests, context=Context(ready=lambda: True))
        for frame, inference in ahead.read(frames) if requests else ((frame, infer) for frame in frames):
            if frame.signal is not None:
                results.append((frame.stream, frame.seq, -1, b""))
                continue
            done, temporal = key_frames.segment(frame, inference, every=every)
            assert done.semantic is not None
            assert done.semantic.scores is not None
            results.append((frame.stream, frame.seq, temporal.age, done.semantic.scores.tobytes()))
    return results, images


def interleave(*streams: list[Frame]) -> list[Frame]:
    return [frame for frames in zip(*streams, strict=True) for frame in frames]


def cut(frames: list[Frame], at: int) -> list[Frame]:
    """Return the frames with unrelated images from the frame `at` on."""
    return [*frames[:at], *(replace(frame, image=np.ascontiguousarray(frame.image[::-1])) for frame in frames[at:])]


@pytest.mark.parametrize("every", [2, 3, 5, 9])
@pytest.mark.parametrize("requests", [1, 2, 4])
@pytest.mark.parametrize(
    "frames",
    [
        drive(20),
        interleave(drive(10), drive(10, stream="rear", start=90)),
        cut(drive(20), 7),
        drive(20, speed=19),  # too much comes into view: early key frames
        [*drive(7), replace(drive(8)[7], signal=Signal("stalled", "no data", 0)), *drive(12)[8:]],
    ],
    ids=["one stream", "two streams", "a cut", "early key frames", "a placeholder"],
)
def test_results_are_those_without_lookahead(frames: list[Frame], every: int, requests: int) -> None:
    expected, images = run(frames, every)
    results, ahead = run(frames, every, requests=requests)
    assert results == expected
    assert set(images) <= set(ahead)


def test_nothing_is_computed_twice_or_in_vain_where_no_key_frame_is_early() -> None:
    frames = drive(20)
    _, images = run(frames, 3)
    assert run(frames, 3, requests=2)[1] == images == [frame.image.tobytes() for frame in frames[::3]]


def test_key_frames_are_foreseen_again_after_an_early_one() -> None:
    frames = cut(drive(40), 7)
    _, images = run(frames, 3)
    assert len(run(frames, 3, requests=2)[1]) <= len(images) + 2


def test_two_key_frames_are_computed_at_a_time() -> None:
    both = Barrier(2)

    def infer(image: Image) -> Callable[[], Semantic]:
        return lambda: (both.wait(10), segment(image))[1]

    frames = drive(4)
    with Workers(2, name="test") as workers:
        ahead = Lookahead(infer, workers, every=2, requests=2, context=Context(ready=lambda: True))
        taken = [inference(frame.image) for frame, inference in ahead.read(frames)]
        for result in (taken[0], taken[2]):
            assert result().size == (176, 240)


@pytest.mark.parametrize("every", [2, 5, 100])
def test_few_frames_wait(every: int) -> None:
    read: list[int] = []

    def note(frames: list[Frame]) -> Iterator[Frame]:
        for frame in frames:
            read.append(frame.seq)
            yield frame

    with Workers(2, name="test") as workers:
        ahead = Lookahead(
            lambda image: lambda: segment(image), workers, every=every, requests=2, context=Context(ready=lambda: True)
        )
        for taken, _ in enumerate(ahead.read(note(drive(40))), 1):
            assert len(read) - taken < MOST_FRAMES


def test_a_finished_frame_does_not_wait_for_the_next_one() -> None:
    """A source that sends a frame after the result of the one before, as a camera that must not lose any does."""
    computed: list[bytes] = []

    def infer(image: Image) -> Callable[[], Semantic]:
        return lambda: (computed.append(image.tobytes()), segment(image))[1]

    def send(frames: list[Frame]) -> Iterator[Frame]:
        for sent, frame in enumerate(frames):
            assert len(done) == sent
            yield frame

    done: list[int] = []
    frames = drive(6)
    with Workers(2, name="test") as workers:
        ahead = Lookahead(infer, workers, every=1, requests=2, context=Context())
        for frame, inference in ahead.read(send(frames)):
            inference(frame.image)()
            done.append(frame.seq)
    assert done == list(range(6))
    assert computed == [frame.image.tobytes() for frame in frames]


def infer(image: Image) -> Callable[[], Semantic]:
    return lambda: segment(image)


def test_the_frames_before_an_error_of_the_source_are_yielded() -> None:
    def fail() -> Iterator[Frame]:
        yield from drive(4)
        raise SourceError("breaks off")

    with Workers(2, name="test") as workers:
        frames = Lookahead(infer, workers, every=1, requests=2, context=Context(ready=lambda: True)).read(fail())
        assert [next(frames)[0].seq for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(SourceError, match="breaks off"):
            next(frames)


@pytest.mark.parametrize("stopping", [True, False])
def test_a_stopped_run_drops_frames_whose_results_take_long(monkeypatch: pytest.MonkeyPatch, stopping: bool) -> None:
    monkeypatch.setattr("stream_seg.stages.lookahead.STOP_S", 0.0)
    released = Event()

    def wait(image: Image) -> Callable[[], Semantic]:
        return lambda: (released.wait(10), segment(image))[1]

    taken: list[int] = []
    with Workers(2, name="test") as workers:
        ahead = Lookahead(
            wait, workers, every=1, requests=4, context=Context(ready=lambda: True, stopping=lambda: stopping)
        )
        for frame, _ in ahead.read(iter(drive(4))):
            taken.append(frame.seq)
        released.set()
    assert taken == ([] if stopping else [0, 1, 2, 3])


def test_more_requests_than_frames_wait_by_default_are_all_computed_at_a_time() -> None:
    count = MOST_FRAMES + 2
    together = Barrier(count)

    def meet(image: Image) -> Callable[[], Semantic]:
        return lambda: (together.wait(10), segment(image))[1]

    with Workers(count, name="test") as workers:
        ahead = Lookahead(meet, workers, every=1, requests=count, context=Context(ready=lambda: True))
        assert len([inference(frame.image)() for frame, inference in ahead.read(drive(count))]) == count


def test_errors_name_the_frame_that_failed_not_one_read_ahead() -> None:
    def fail(frames: Frames) -> Frames:
        context = replace(stage.context, ready=lambda: True)
        with Workers(2, name="test") as workers:
            ahead = Lookahead(infer, workers, every=1, requests=3, context=context)
            for frame, _ in ahead.read(frames):
                if frame.seq == 2:
                    raise ZeroDivisionError("no way")
                yield frame

    stage = Bound(fail)
    graph = run_graph(make_chain(Camera(20), stage, Ledger()))
    assert str(graph.error).startswith("stage work failed at frame camera:2: ZeroDivisionError: no way")


def test_errors_name_a_frame_that_cannot_be_prepared_after_the_frames_before_it() -> None:
    def fail(frames: Frames) -> Frames:
        def prepare(image: Image) -> Callable[[], Semantic]:
            if next(numbers) == 2:
                raise ZeroDivisionError("no way")
            return lambda: segment(image)

        numbers, context = count(), replace(stage.context, ready=lambda: True)
        with Workers(2, name="test") as workers:
            ahead = Lookahead(prepare, workers, every=1, requests=3, context=context)
            for frame, _ in ahead.read(frames):
                taken.append(frame.seq)
                yield frame

    taken: list[int] = []
    stage = Bound(fail)
    graph = run_graph(make_chain(Camera(20), stage, Ledger()))
    assert taken == [0, 1]
    assert str(graph.error).startswith("stage work failed at frame camera:2: ZeroDivisionError: no way")
