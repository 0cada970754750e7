"""Pixels that a key frame did not show: void until the next key frame, which is due early if they are many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from threading import Event

import cv2
import numpy as np
import pytest

from stream_seg.datasets.palettes import CAMVID
from stream_seg.frame import EngineInfo, Frame, Semantic, Temporal
from stream_seg.keyframes.keyframes import MAX_UNKNOWN, Every, KeyFrames
from stream_seg.stages.smooth import Smooth
from stream_seg.stages.synthetic import Synthetic
from stream_seg.types import VOID, Classes, Image, Labels
from tests.support.frames import make_frame

ENGINE = EngineInfo("truth", "numpy", "f32", "cpu")
CAR, THIN = CAMVID.index("car"), (CAMVID.index("pole"), CAMVID.index("sign"))
WALL = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (176, 900), np.uint8), (9, 9), 2)
WALL = cv2.normalize(WALL, None, 0, 255, cv2.NORM_MINMAX)


@cache
def synthetic_drive(frames: int, camera: str, seed: int, *, crossing: bool = False) -> list[Frame]:
    drive = Synthetic(
        camera=camera,  # type: ignore[arg-type]
        crossing=crossing,
        seed=seed,
        shake=0,
        frames=frames,
        rate=15,
        width=320,
        height=240,
        truth=True,
    )
    return list(drive(iter(())))


def true_labels(frame: Frame) -> Labels:
    assert frame.truth is not None
    return frame.truth.labels


def know_truth(frame: Frame) -> Callable[[Image], Callable[[], Semantic]]:
    """Return an inference function that gives the true classes of a frame."""
    labels = true_labels(frame)
    scores = np.where(labels == np.arange(len(CAMVID), dtype=np.uint8)[:, None, None], 8, 0).astype(np.float32)
    return lambda _: lambda: Semantic(CAMVID, ENGINE, labels.shape, scores)  # type: ignore[arg-type]


def segment(frames: list[Frame], every: Every) -> list[tuple[Frame, Semantic, Temporal]]:
    key_frames, results = KeyFrames(None), []
    for frame in frames:
        done, temporal = key_frames.segment(frame, know_truth(frame), every=every)
        assert done.semantic is not None
        results.append((replace(done, temporal=temporal), done.semantic, temporal))
    return results


def core(mask: np.ndarray) -> np.ndarray:
    """Return a mask without its outline: labels may be wrong by a pixel or two there."""
    return np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0)


def wrong_share(labels: Labels, van: np.ndarray) -> float:
    """Return the share of the pixels of a van that are labelled as anything but car or void."""
    return float(((labels != CAR) & (labels != VOID))[van].mean()) if van.any() else 0.0


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("seed", [1, 3])
def test_a_van_that_enters_between_key_frames_is_never_labelled_as_the_road(seed: int, smoothed: bool) -> None:
    results = segment(synthetic_drive(24, "static", seed, crossing=True), 5)
    frames = (
        list(Smooth()(iter([frame for frame, _, _ in results]))) if smoothed else [frame for frame, _, _ in results]
    )
    vans = [core(true_labels(frame) == CAR) for frame in frames]
    without_void = [replace(semantic, unknown=None).labels for _, semantic, _ in results]
    assert max(map(wrong_share, without_void, vans)) > 0.4
    assert max(wrong_share(frame.labels, van) for frame, van in zip(frames, vans, strict=True)) < 0.02
    voids = [float((frame.labels == VOID).mean()) for frame in frames]
    assert max(voids) < MAX_UNKNOWN  # the rest of the image keeps its classes
    assert np.mean(voids) < 0.02


def test_poles_bend_less_than_without_void() -> None:
    results = segment(synthetic_drive(15, "drive", 7), 5)
    precision = {}
    for name in ("void", "bent"):
        hits = np.zeros(2)
        for frame, semantic, _ in results:
            labels = (semantic if name == "void" else replace(semantic, unknown=None)).labels
            thin = np.isin(labels, THIN)
            hits += (labels == true_labels(frame))[thin].sum(), thin.sum()
        precision[name] = hits[0] / hits[1]
    assert precision["void"] > precision["bent"] + 0.01


def walk(frames: int, *, speed: int) -> list[Frame]:
    """Return frames of a textured wall that moves past the camera, to the left."""
    views = (WALL[:, speed * seq : speed * seq + 240] for seq in range(frames))
    return [replace(make_frame(seq), image=np.dstack([view] * 3)) for seq, view in enumerate(views)]


def halves(image: Image) -> Callable[[], Semantic]:
    """Return scores of the size of the image: bright or dark."""
    bright = image[..., 0].astype(np.float32) - 127
    classes = Classes(("dark", "bright"), ((0, 0, 0), (255, 0, 0)))
    return lambda: Semantic(classes, ENGINE, (176, 240), np.stack([-bright, bright]))


def labels_only(image: Image) -> Callable[[], Semantic]:
    semantic = halves(image)()
    return lambda: replace(semantic, scores=None, label_map=semantic.labels)


@pytest.mark.parametrize("infer", [halves, labels_only])
@pytest.mark.parametrize("every", [6, "auto"])
def test_what_comes_into_view_is_void(every: Every, infer: Callable[[Image], Callable[[], Semantic]]) -> None:
    key_frames = KeyFrames(None)
    frame, age = make_frame(0), 0
    for number, view in enumerate(walk(4, speed=3)):
        frame, temporal = key_frames.segment(view, infer, every=every)
        age = temporal.age
        void = frame.labels == VOID
        new = 3 * number
        assert void[:, 240 - new + 2 :].all()
        assert void[:, : 240 - new - 3].mean() < 0.01
    assert age == 3


def test_pixels_without_a_score_stay_void_until_the_next_key_frame() -> None:
    def infer(image: Image) -> Callable[[], Semantic]:
        unknown = np.zeros((88, 120), np.uint8)
        unknown[20:40, 60:80] = VOID
        return lambda: replace(halves(image)(), unknown=unknown)

    key_frames = KeyFrames(None)
    for number, view in enumerate(walk(4, speed=3)):
        frame, _ = key_frames.segment(view, infer, every=6)
        void = frame.labels == VOID
        left = 120 - 3 * number
        assert void[44:76, left + 4 : left + 36].all(), "it moves with the image"
        assert not void[100:, :200].any()


def ages(frames: list[Frame], every: Every) -> list[int]:
    key_frames = KeyFrames(None)
    return [key_frames.segment(frame, halves, every=every)[1].age for frame in frames]


def test_a_key_frame_is_due_early_if_much_is_unknown_but_not_before_half_of_the_interval() -> None:
    slow, fast = 3, 14  # of 240 columns per frame: a twentieth comes into view in 5 frames, and in one
    assert ages(walk(9, speed=slow), 8) == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert ages(walk(9, speed=fast), 8) == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert ages(walk(4, speed=fast), 2) == [0, 0, 0, 0]
    assert ages(walk(4, speed=fast), "auto") == [0, 0, 0, 0]
    assert ages(walk(9, speed=0), 8) == [0, 1, 2, 3, 4, 5, 6, 7, 0]


def test_a_live_frame_asks_for_a_key_frame_and_does_not_wait_for_it() -> None:
    done, started = Event(), list[int]()

    def slow(image: Image) -> Callable[[], Semantic]:
        started.append(len(started))
        semantic, first = halves(image)(), len(started) == 1

        def run_network() -> Semantic:
            assert first or done.wait(10)
            return semantic

        return run_network

    frames = walk(8, speed=14)
    with ThreadPoolExecutor(1) as worker:
        key_frames = KeyFrames(worker)
        out = [key_frames.segment(frame, slow, every=6) for frame in frames[:6]]
        done.set()
        worker.submit(lambda: None).result(10)  # after the network
        out.append(key_frames.segment(frames[6], slow, every=6))
    assert [temporal.key for _, temporal in out] == [True, False, False, True, False, False, True]
    assert [temporal.age for _, temporal in out] == [0, 1, 2, 3, 4, 5, 3]
    smoothed = list(Smooth()(replace(frame, temporal=temporal) for frame, temporal in out))
    for frame, age in zip(smoothed, [0, 1, 2, 3, 4, 5, 3], strict=True):  # the late result is void where it is old
        void = (frame.labels == VOID).mean()
        assert void == pytest.approx(age * 14 / 240, abs=0.02)
