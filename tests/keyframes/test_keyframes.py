"""Key frames: which key frame the classes of a frame come from, and how they are warped to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event

import cv2
import numpy as np
import pytest

from stream_seg.frame import EngineInfo, Frame, Semantic, Temporal
from stream_seg.keyframes.keyframes import MAX_INTERVAL, Every, KeyFrames
from stream_seg.per_stream import EXPIRY_FRAMES, PerStream
from stream_seg.stages.smooth import Smooth
from stream_seg.types import Classes, Image
from tests.support.frames import make_frame

CLASSES = Classes(("dark", "bright"), ((0, 0, 0), (255, 0, 0)))
ENGINE = EngineInfo("stub", "numpy", "f32", "cpu")
SPEED = 3  # pixels per frame, to the left
TOWN = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (176, 600), np.uint8), (9, 9), 2)
TOWN = cv2.normalize(TOWN, None, 0, 255, cv2.NORM_MINMAX)


def drive(frames: int, *, stream: str = "camera", speed: int = SPEED, start: int = 0) -> list[Frame]:
    """Return frames of a textured wall that moves past the camera."""
    views = (TOWN[:, start + speed * seq : start + speed * seq + 240] for seq in range(frames))
    return [replace(make_frame(seq, stream=stream), image=np.dstack([view] * 3)) for seq, view in enumerate(views)]


def segment(image: Image) -> Semantic:
    """Return scores of the size of the image: how bright or dark each pixel is."""
    bright = image[..., 0].astype(np.float32) - 127
    return Semantic(CLASSES, ENGINE, (176, 240), np.stack([-bright, bright]))


def infer(image: Image) -> Callable[[], Semantic]:
    return lambda: segment(image)


def run(frames: list[Frame], every: Every, key_frames: KeyFrames | None = None) -> list[tuple[Semantic, Temporal]]:
    key_frames = key_frames or KeyFrames(None)
    results = [key_frames.segment(frame, infer, every=every) for frame in frames]
    return [(frame.semantic, temporal) for frame, temporal in results if frame.semantic is not None]


def scores(semantic: Semantic) -> np.ndarray:
    assert semantic.scores is not None
    return semantic.scores


def ages(out: list[tuple[Semantic, Temporal]]) -> list[int]:
    return [temporal.age for _, temporal in out]


def error_rate(semantic: Semantic, image: Image) -> float:
    """Return the share of pixels with a wrong class, without the border that came into view."""
    wrong = semantic.labels != segment(image).labels
    return float(wrong[8:-8, 8 : -8 - 4 * SPEED].mean())


def test_every_third_frame_is_a_key_frame_and_the_others_have_its_age() -> None:
    out = run(drive(8), 3)
    assert ages(out) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [temporal.key for _, temporal in out] == [True, False, False] * 2 + [True, False]
    assert [None if t.motion is None else t.motion.from_seq for _, t in out] == [None, 0, 1, None, 3, 4, None, 6]


def test_classes_are_warped_with_the_image() -> None:
    frames = drive(5)
    out = run(frames, 5)
    first = out[0][0]
    for frame, (semantic, _) in list(zip(frames, out, strict=True))[1:]:
        assert error_rate(semantic, frame.image) < 0.06
    assert error_rate(first, frames[4].image) > 0.3  # not warped


def test_labels_without_scores_are_warped_too() -> None:
    frames = drive(3)
    key_frames = KeyFrames(None)

    def labels_only(image: Image) -> Callable[[], Semantic]:
        semantic = segment(image)
        return lambda: Semantic(CLASSES, ENGINE, semantic.size, label_map=semantic.labels)

    results = [key_frames.segment(frame, labels_only, every=5)[0].semantic for frame in frames]
    assert results[2] is not None
    assert error_rate(results[2], frames[2].image) < 0.08


@pytest.mark.parametrize("every", [3, "auto"])
def test_equal_frames_give_equal_classes_whatever_other_streams_do(every: Every) -> None:
    front, rear = drive(10), drive(10, stream="rear", speed=7)
    alone = run(front, every)
    mixed = run([frame for pair in zip(front, rear, strict=True) for frame in pair], every)[::2]
    again = run(front, every)
    for (one, when), (two, then), (three, _) in zip(alone, mixed, again, strict=True):
        assert (when.key, when.age) == (then.key, then.age)
        np.testing.assert_array_equal(scores(one), scores(two))
        np.testing.assert_array_equal(scores(one), scores(three))


DISCONTINUITIES: dict[str, Callable[[Frame], Frame]] = {
    "cut": lambda frame: replace(frame, image=np.ascontiguousarray(255 - frame.image[::-1, ::-1])),
    "gap": lambda frame: replace(frame, pts=frame.pts + 40),
    "back": lambda frame: replace(frame, pts=0),
    "size": lambda frame: replace(frame, image=np.ascontiguousarray(frame.image[:88])),
}


@pytest.mark.parametrize("change", DISCONTINUITIES.values(), ids=DISCONTINUITIES.keys())
def test_a_discontinuity_makes_a_key_frame(change: Callable[[Frame], Frame]) -> None:
    frames = drive(3)
    assert ages(run([frames[0], frames[1], change(frames[2])], 10)) == [0, 1, 0]


@pytest.mark.parametrize(("frames_later", "age"), [(15, 1), (16, 0)])
def test_a_pause_as_long_as_the_gap_of_smooth_makes_a_key_frame(frames_later: int, age: int) -> None:
    first, second = drive(2)
    assert Smooth().gap_s == 15 * first.time_base
    later = replace(second, pts=frames_later)
    assert ages(run([first, later], 10)) == [0, age]


def test_auto_makes_more_key_frames_the_more_changes() -> None:
    still = ages(run(drive(40, speed=0), "auto"))
    slow, fast = (ages(run(drive(24, speed=speed), "auto")).count(0) for speed in (1, 14))
    assert still == [number % MAX_INTERVAL for number in range(40)]
    assert 2 <= slow < fast


@pytest.mark.parametrize(
    ("background", "often"), [(False, range(31)), (True, [0, *range(1, 31, 2)])], ids=["waiting", "worker"]
)
def test_auto_runs_an_unsure_network_more_often(background: bool, often: Sequence[int]) -> None:
    """Nothing moves, so only the margins between the classes differ."""

    def unsure(image: Image) -> Callable[[], Semantic]:
        semantic = segment(image)
        return lambda: replace(semantic, scores=scores(semantic) / 1000)

    with ThreadPoolExecutor(1) as worker:
        for function, expected in ((infer, [0, MAX_INTERVAL, 2 * MAX_INTERVAL]), (unsure, list(often))):
            key_frames, numbers = KeyFrames(worker if background else None), []
            for frame in drive(31, speed=0):
                _, temporal = key_frames.segment(frame, function, every="auto")
                worker.submit(lambda: None).result(10)  # the result is there before the next frame
                numbers += [frame.seq] if temporal.key else []
            assert numbers == expected


def test_the_state_of_a_silent_stream_expires_and_that_of_a_slow_one_does_not() -> None:
    states, slow = PerStream[int](), EXPIRY_FRAMES * 9 // 10
    for number in range(3 * EXPIRY_FRAMES):
        if number % 500 == 0:
            states.put(f"gone {number}", number)
        if number % slow == 0:
            states.put("slow", number)
        states.put("live", number)
        assert states.get("slow") == number - number % slow
    assert states.get("live") == 3 * EXPIRY_FRAMES - 1
    remaining = [number for number in range(0, 3 * EXPIRY_FRAMES, 500) if states.get(f"gone {number}") is not None]
    assert remaining == list(range(2 * EXPIRY_FRAMES + 500, 3 * EXPIRY_FRAMES, 500))


@pytest.mark.parametrize("every", [4, "auto"])
def test_a_stream_whose_state_expired_begins_with_a_key_frame(monkeypatch: pytest.MonkeyPatch, every: Every) -> None:
    monkeypatch.setattr("stream_seg.per_stream.EXPIRY_FRAMES", 5)
    gone, live = drive(3, stream="gone"), drive(5)
    assert ages(run([*gone[:2], *live[:4], gone[2]], every))[-1] == 2
    assert ages(run([*gone[:2], *live[:5], gone[2]], every))[-1] == 0


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def test_live_frames_do_not_wait_for_a_key_frame_and_its_result_is_warped_to_them(worker: ThreadPoolExecutor) -> None:
    frames, key_frames = drive(9), KeyFrames(worker)
    done, waits = Event(), False

    def slow(image: Image) -> Callable[[], Semantic]:
        copy = image.copy()

        def run_network() -> Semantic:
            if waits:
                assert done.wait(10)
            return segment(copy)

        return run_network

    out = [key_frames.segment(frames[0], slow, every=3)]
    waits = True
    out += [key_frames.segment(frame, slow, every=3) for frame in frames[1:7]]  # while the network runs
    done.set()
    worker.submit(lambda: None).result(10)  # after the network: the worker runs one function at a time
    out += [key_frames.segment(frame, slow, every=3) for frame in frames[7:8]]
    assert [temporal.age for _, temporal in out] == [0, 1, 2, 3, 4, 5, 6, 4]
    assert [temporal.key for _, temporal in out] == [True, False, False, True, False, False, False, True]
    late = out[7][0].semantic
    assert late is not None
    expected = run(frames[3:8], 9)[4][0]  # as if the network had taken no time
    np.testing.assert_array_equal(scores(late), scores(expected))


@pytest.mark.parametrize(("limit_s", "waits", "newest"), [(0.0, 1, 1), (600.0, 0, 3)])
def test_a_frame_waits_for_a_network_that_seems_to_hang(
    limit_s: float, waits: int, newest: int, worker: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a graph whose network hangs would move old labels along, and the watchdog would see progress."""
    frames, key_frames, release, calls = drive(4), KeyFrames(worker), Event(), list[object]()

    def hang(image: Image) -> Callable[[], Semantic]:
        return lambda: segment(image) if release.wait(30) else pytest.fail("not released")

    def wait_and_release(futures: object) -> None:
        calls.append(futures)
        release.set()
        wait(futures)  # type: ignore[arg-type]

    monkeypatch.setattr("stream_seg.keyframes.keyframes.wait", wait_and_release)
    monkeypatch.setattr("stream_seg.keyframes.keyframes.HANG_S", limit_s)
    monkeypatch.setattr("stream_seg.keyframes.keyframes.HANG_FACTOR", 0)
    key_frames.segment(frames[0], infer, every=2)
    temporal = [key_frames.segment(frame, hang, every=2)[1] for frame in frames[1:]]
    release.set()
    assert (len(calls), [entry.age for entry in temporal]) == (waits, [1, 2, newest])


def test_at_a_cut_a_live_frame_waits(worker: ThreadPoolExecutor) -> None:
    frames, key_frames = drive(4), KeyFrames(worker)
    out = run([*frames[:3], DISCONTINUITIES["cut"](frames[3])], 2, key_frames)
    assert out[3][1].age == 0
    np.testing.assert_array_equal(scores(out[3][0]), scores(segment(DISCONTINUITIES["cut"](frames[3]).image)))


def test_an_error_of_the_network_in_the_background_is_raised(worker: ThreadPoolExecutor) -> None:
    def fails(image: Image) -> Callable[[], Semantic]:
        def run_network() -> Semantic:
            raise RuntimeError("no more")

        return run_network

    frames, key_frames = drive(5), KeyFrames(worker)
    key_frames.segment(frames[0], infer, every=2)
    key_frames.segment(frames[1], infer, every=2)
    key_frames.segment(frames[2], fails, every=2)
    worker.submit(lambda: None).result(10)
    with pytest.raises(RuntimeError, match="no more"):
        key_frames.segment(frames[3], infer, every=2)
