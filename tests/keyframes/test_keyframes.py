"""Key frames: whose classes a frame has, and how they got there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import cv2
import numpy as np
import pytest

from stream_seg.frame import EngineInfo, Frame, Semantic, Temporal
from stream_seg.keyframes.keyframes import LONGEST, Every, Keys
from stream_seg.per_stream import EXPIRY_FRAMES, PerStream
from stream_seg.types import Classes, Image
from tests.support.frames import make_frame

CLASSES = Classes(("dark", "bright"), ((0, 0, 0), (255, 0, 0)))
ENGINE = EngineInfo("stub", "numpy", "f32", "cpu")
SPEED = 3  # pixels per frame, to the left
TOWN = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (176, 600), np.uint8), (9, 9), 2)
TOWN = cv2.normalize(TOWN, None, 0, 255, cv2.NORM_MINMAX)


def drive(frames: int, *, stream: str = "camera", speed: int = SPEED, start: int = 0) -> list[Frame]:
    """A textured wall that passes by."""
    views = (TOWN[:, start + speed * seq : start + speed * seq + 240] for seq in range(frames))
    return [replace(make_frame(seq, stream=stream), image=np.dstack([view] * 3)) for seq, view in enumerate(views)]


def said(image: Image) -> Semantic:
    """Of a picture of the size of its scores: bright or dark, and how much."""
    bright = image[..., 0].astype(np.float32) - 127
    return Semantic(CLASSES, ENGINE, (176, 240), np.stack([-bright, bright]))


def look(image: Image) -> Callable[[], Semantic]:
    return lambda: said(image)


def seen(frames: list[Frame], every: Every, keys: Keys | None = None) -> list[tuple[Semantic, Temporal]]:
    keys = keys or Keys(None)
    done = [keys.frame(taken, look, every=every) for taken in frames]
    return [(out.semantic, temporal) for out, temporal in done if out.semantic is not None]


def scores(semantic: Semantic) -> np.ndarray:
    assert semantic.scores is not None
    return semantic.scores


def ages(out: list[tuple[Semantic, Temporal]]) -> list[int]:
    return [temporal.age for _, temporal in out]


def off(semantic: Semantic, image: Image) -> float:
    """Share of pixels whose class is not that of the picture, the edge that came into view left out."""
    wrong = semantic.labels != said(image).labels
    return float(wrong[8:-8, 8 : -8 - 4 * SPEED].mean())


def test_every_third_frame_is_a_key_frame_and_the_others_say_so() -> None:
    out = seen(drive(8), 3)
    assert ages(out) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [temporal.key for _, temporal in out] == [True, False, False] * 2 + [True, False]
    assert [None if t.motion is None else t.motion.from_seq for _, t in out] == [None, 0, 1, None, 3, 4, None, 6]


def test_classes_are_carried_with_the_picture() -> None:
    frames = drive(5)
    out = seen(frames, 5)
    held = out[0][0]
    for taken, (semantic, _) in list(zip(frames, out, strict=True))[1:]:
        assert off(semantic, taken.image) < 0.06
    assert off(held, frames[4].image) > 0.3  # without motion


def test_labels_without_scores_are_carried_too() -> None:
    frames = drive(3)
    keys = Keys(None)

    def labels_only(image: Image) -> Callable[[], Semantic]:
        whole = said(image)
        return lambda: Semantic(CLASSES, ENGINE, whole.size, label_map=whole.labels)

    done = [keys.frame(taken, labels_only, every=5)[0].semantic for taken in frames]
    assert done[2] is not None
    assert off(done[2], frames[2].image) < 0.08


@pytest.mark.parametrize("every", [3, "auto"])
def test_the_same_frames_give_the_same_classes_whatever_other_streams_do(every: Every) -> None:
    front, rear = drive(10), drive(10, stream="rear", speed=7)
    alone = seen(front, every)
    mixed = seen([taken for pair in zip(front, rear, strict=True) for taken in pair], every)[::2]
    again = seen(front, every)
    for (one, when), (two, then), (three, _) in zip(alone, mixed, again, strict=True):
        assert (when.key, when.age) == (then.key, then.age)
        np.testing.assert_array_equal(scores(one), scores(two))
        np.testing.assert_array_equal(scores(one), scores(three))


GONE = {
    "cut": lambda taken: replace(taken, image=np.ascontiguousarray(255 - taken.image[::-1, ::-1])),
    "gap": lambda taken: replace(taken, pts=taken.pts + 40),
    "back": lambda taken: replace(taken, pts=0),
    "size": lambda taken: replace(taken, image=np.ascontiguousarray(taken.image[:88])),
}


@pytest.mark.parametrize("change", GONE.values(), ids=GONE.keys())
def test_where_nothing_can_be_carried_the_network_looks(change: Callable[[Frame], Frame]) -> None:
    frames = drive(3)
    assert ages(seen([frames[0], frames[1], change(frames[2])], 10)) == [0, 1, 0]


def test_auto_looks_when_much_has_changed_and_rarely_where_nothing_does() -> None:
    still = ages(seen(drive(40, speed=0), "auto"))
    slow, fast = (ages(seen(drive(24, speed=speed), "auto")).count(0) for speed in (1, 14))
    assert still == [number % LONGEST for number in range(40)]
    assert 2 <= slow < fast


@pytest.mark.parametrize(
    ("aside", "often"), [(False, range(31)), (True, [0, *range(1, 31, 2)])], ids=["waiting", "worker"]
)
def test_auto_asks_an_unsure_network_more_often(aside: bool, often: Sequence[int]) -> None:
    """Nothing moves, so only the margins between the classes differ."""

    def unsure(image: Image) -> Callable[[], Semantic]:
        semantic = said(image)
        return lambda: replace(semantic, scores=scores(semantic) / 1000)

    with ThreadPoolExecutor(1) as worker:
        for ask, expected in ((look, [0, LONGEST, 2 * LONGEST]), (unsure, list(often))):
            keys, numbers = Keys(worker if aside else None), []
            for taken in drive(31, speed=0):
                _, temporal = keys.frame(taken, ask, every="auto")
                worker.submit(lambda: None).result(10)  # the answer is there before the next frame
                numbers += [taken.seq] if temporal.key else []
            assert numbers == expected


def test_a_stream_that_is_gone_is_forgotten_and_a_slow_one_is_not() -> None:
    recent, slow = PerStream[int](), EXPIRY_FRAMES * 9 // 10
    for number in range(3 * EXPIRY_FRAMES):
        if number % 500 == 0:
            recent.put(f"gone {number}", number)
        if number % slow == 0:
            recent.put("slow", number)
        recent.put("live", number)
        assert recent.get("slow") == number - number % slow
    assert recent.get("live") == 3 * EXPIRY_FRAMES - 1
    held = [number for number in range(0, 3 * EXPIRY_FRAMES, 500) if recent.get(f"gone {number}") is not None]
    assert held == list(range(2 * EXPIRY_FRAMES + 500, 3 * EXPIRY_FRAMES, 500))


@pytest.mark.parametrize("every", [4, "auto"])
def test_nothing_is_held_of_a_stream_that_is_gone(monkeypatch: pytest.MonkeyPatch, every: Every) -> None:
    monkeypatch.setattr("stream_seg.per_stream.EXPIRY_FRAMES", 5)
    gone, live = drive(3, stream="gone"), drive(5)
    assert ages(seen([*gone[:2], *live[:4], gone[2]], every))[-1] == 2
    assert ages(seen([*gone[:2], *live[:5], gone[2]], every))[-1] == 0


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_no_live_frame_waits_for_a_key_frame_and_its_answer_is_carried_on(worker: ThreadPoolExecutor) -> None:
    frames, keys = drive(9), Keys(worker)
    answer, waits = Event(), False

    def slow(image: Image) -> Callable[[], Semantic]:
        picture = image.copy()

        def ask() -> Semantic:
            if waits:
                assert answer.wait(10)
            return said(picture)

        return ask

    out = [keys.frame(frames[0], slow, every=3)]
    waits = True
    out += [keys.frame(taken, slow, every=3) for taken in frames[1:7]]  # the network does not answer, frames go on
    answer.set()
    worker.submit(lambda: None).result(10)  # after the answer: the worker takes one thing at a time
    out += [keys.frame(taken, slow, every=3) for taken in frames[7:8]]
    assert [temporal.age for _, temporal in out] == [0, 1, 2, 3, 4, 5, 6, 4]
    assert [temporal.key for _, temporal in out] == [True, False, False, True, False, False, False, True]
    joined = out[7][0].semantic
    assert joined is not None
    # as if the network had answered at once
    waited = seen(frames[3:8], 9)[4][0]
    np.testing.assert_array_equal(scores(joined), scores(waited))


def test_at_a_cut_a_live_frame_waits(worker: ThreadPoolExecutor) -> None:
    frames, keys = drive(4), Keys(worker)
    out = seen([*frames[:3], GONE["cut"](frames[3])], 2, keys)
    assert out[3][1].age == 0
    np.testing.assert_array_equal(scores(out[3][0]), scores(said(GONE["cut"](frames[3]).image)))


def test_what_the_network_raises_aside_comes_out(worker: ThreadPoolExecutor) -> None:
    def fails(image: Image) -> Callable[[], Semantic]:
        def ask() -> Semantic:
            raise RuntimeError("no more")

        return ask

    frames, keys = drive(5), Keys(worker)
    keys.frame(frames[0], look, every=2)
    keys.frame(frames[1], look, every=2)
    keys.frame(frames[2], fails, every=2)
    worker.submit(lambda: None).result(10)
    with pytest.raises(RuntimeError, match="no more"):
        keys.frame(frames[3], look, every=2)
