"""Motion against the drawn drive's own, which is exact."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.ops.labels import resized_labels
from stream_seg.ops.motion import SIZE, Motion, confidence, flow, is_cut, luma, resized, warped
from stream_seg.synth import Drawing, Move, render

RATE = 15


@cache
def drawn(seed: int, k: int, move: Move) -> Drawing:
    return render(seed, k, 480, 360, rate=RATE, move=move)


def lumas(seed: int, k: int, move: Move) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return luma(drawn(seed, k - 1, move).image), luma(drawn(seed, k, move).image)


def exact(seed: int, k: int, move: Move) -> Motion:
    return resized(drawn(seed, k, move).motion(), SIZE)


def error(motion: Motion, truth: Motion) -> NDArray[np.float32]:
    """The end-point error of every pixel."""
    return np.asarray(np.linalg.norm(motion - truth, axis=2), np.float32)


@pytest.mark.parametrize(("move", "median", "share"), [("drive", 1.0, 0.5), ("pan", 0.3, 0.1), ("static", 0.2, 0.02)])
def test_flow_is_the_exact_motion_of_most_pixels(move: Move, median: float, share: float) -> None:
    truth = exact(4, 30, move)
    wrong = error(flow(*lumas(4, 30, move)), truth)
    assert np.median(wrong) < median
    assert (wrong > 1).mean() < share
    if move != "static":
        still = error(np.zeros_like(truth), truth)
        assert np.median(still) > 2 * np.median(wrong)


@pytest.mark.parametrize("seed", [0, 4, 7])
def test_flow_carries_the_labels(seed: int) -> None:
    before, now = (resized_labels(drawn(seed, k, "drive").labels(), SIZE) for k in (29, 30))
    motion = flow(*lumas(seed, 30, "drive"))
    moved = (warped(before, motion, nearest=True) != now).mean()
    still = (before != now).mean()
    assert moved < 0.6 * still, (moved, still)


def test_where_the_background_comes_into_sight_confidence_is_low() -> None:
    past, now = (render(4, k, 480, 360, move="static", shake=0, crossing=True) for k in (24, 25))
    before, grey = luma(past.image), luma(now.image)
    believed = confidence(before, grey, flow(before, grey))
    x, y = (np.arange(n, dtype=np.float32) for n in (480, 360))
    motion = now.motion()
    there = np.rint(np.stack((x + motion[..., 0], y[:, None] + motion[..., 1])))[::-1].astype(int)
    there = np.clip(there, 0, np.array([359, 479])[:, None, None])
    uncovered = past.labels()[there[0], there[1]] != now.labels()
    uncovered &= np.linalg.norm(motion, axis=2) < 0.5
    appeared = resized_labels(uncovered.astype(np.uint8), SIZE) > 0
    assert appeared.sum() > 50
    assert believed[appeared].mean() < 0.5 * believed.mean()


def test_what_came_from_outside_is_not_believed() -> None:
    picture = lumas(4, 30, "static")[0]
    shifted = np.zeros((*SIZE, 2), np.float32)
    shifted[..., 0] = -20
    believed = confidence(np.roll(picture, -20, axis=1), picture, -shifted)
    assert not believed[:, -19:].any()
    believed = confidence(np.roll(picture, 20, axis=1), picture, shifted)
    assert not believed[:, :19].any()


def test_what_is_next_to_a_doubtful_pixel_is_doubtful() -> None:
    before = np.tile(np.linspace(20, 180, SIZE[1]).astype(np.uint8), (SIZE[0], 1))
    now = before.copy()
    now[80, 50] = 255
    believed = confidence(before, now, np.zeros((*SIZE, 2), np.float32))
    assert believed[78:83, 48:53].max() < 0.1  # a pixel off by the blur, one more for the neighbours
    assert believed[80, [46, 54]].min() > 0.9


def test_a_common_change_of_brightness_is_no_doubt() -> None:
    before, now = lumas(4, 30, "drive")
    motion = flow(before, now)
    darker = (now * 0.6).astype(np.uint8)
    assert np.abs(confidence(before, darker, motion) - confidence(before, now, motion)).mean() < 0.1
    assert not is_cut(confidence(before, darker, flow(before, darker)))


def test_cuts_are_told_from_fast_driving() -> None:
    pictures = [luma(drawn(seed, k, "drive").image) for seed in (0, 4, 7) for k in (29, 30)]
    cuts = [is_cut(confidence(a, b, flow(a, b))) for a, b in pairwise(pictures)]
    assert cuts == [False, True, False, True, False]
    fast = luma(render(4, 30, 480, 360, rate=5).image), luma(render(4, 31, 480, 360, rate=5).image)
    assert not is_cut(confidence(*fast, flow(*fast)))


def test_vectors_grow_with_the_picture() -> None:
    motion = np.full((*SIZE, 2), (2.0, 3.0), np.float32)
    np.testing.assert_allclose(resized(motion, (SIZE[0] * 2, SIZE[1] * 3)), np.full((352, 720, 2), (6.0, 6.0)))


def test_warped_takes_the_past_from_where_motion_says() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    motion = np.full((3, 4, 2), (1.0, 0.5), np.float32)
    np.testing.assert_allclose(warped(array, motion)[:2, :3], (array[:2, 1:] + array[1:, 1:]) / 2, atol=1e-5)


@pytest.mark.parametrize("light", [0.5, 0.7])
def test_a_jump_of_the_exposure_is_no_motion(light: float) -> None:
    before, now = lumas(4, 30, "pan")
    dimmed = (now * light).astype(np.uint8)
    bare = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    bare.setFinestScale(1)
    as_it_is = np.asarray(bare.calc(dimmed, before, None), np.float32)  # type: ignore[call-overload]
    truth = exact(4, 30, "pan")
    wrong = error(flow(before, dimmed), truth).mean()
    assert wrong < 1.3 * error(flow(before, now), truth).mean()
    assert wrong < 0.7 * error(as_it_is, truth).mean()
