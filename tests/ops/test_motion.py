"""Compare the optical flow with the exact motion of synthetic drives."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.ops.labels import resize_labels
from stream_seg.ops.motion import (
    SIZE,
    Motion,
    compute_luma,
    estimate_confidence,
    estimate_flow,
    find_mismatch,
    find_outside,
    is_cut,
    resize_motion,
    warp,
)
from stream_seg.synth import Canvas, Move, render

RATE = 15


@cache
def draw(seed: int, k: int, move: Move) -> Canvas:
    return render(seed, k, 480, 360, rate=RATE, move=move)


def lumas(seed: int, k: int, move: Move) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return compute_luma(draw(seed, k - 1, move).image), compute_luma(draw(seed, k, move).image)


def exact(seed: int, k: int, move: Move) -> Motion:
    return resize_motion(draw(seed, k, move).motion(), SIZE)


def error(motion: Motion, truth: Motion) -> NDArray[np.float32]:
    """Return the end-point error of every pixel."""
    return np.asarray(np.linalg.norm(motion - truth, axis=2), np.float32)


@pytest.mark.parametrize(("move", "median", "share"), [("drive", 1.0, 0.5), ("pan", 0.3, 0.1), ("static", 0.2, 0.02)])
def test_flow_is_exact_for_most_pixels(move: Move, median: float, share: float) -> None:
    truth = exact(4, 30, move)
    wrong = error(estimate_flow(*lumas(4, 30, move)), truth)
    assert np.median(wrong) < median
    assert (wrong > 1).mean() < share
    if move != "static":
        still = error(np.zeros_like(truth), truth)
        assert np.median(still) > 2 * np.median(wrong)


@pytest.mark.parametrize("seed", [0, 4, 7])
def test_flow_propagates_labels(seed: int) -> None:
    before, now = (resize_labels(draw(seed, k, "drive").labels(), SIZE) for k in (29, 30))
    motion = estimate_flow(*lumas(seed, 30, "drive"))
    moved = (warp(before, motion, nearest=True) != now).mean()
    still = (before != now).mean()
    assert moved < 0.6 * still, (moved, still)


def test_confidence_is_low_where_the_background_appears() -> None:
    past, now = (render(4, k, 480, 360, move="static", shake=0, crossing=True) for k in (24, 25))
    before, grey = compute_luma(past.image), compute_luma(now.image)
    result = estimate_confidence(before, grey, estimate_flow(before, grey))
    x, y = (np.arange(n, dtype=np.float32) for n in (480, 360))
    motion = now.motion()
    positions = np.rint(np.stack((x + motion[..., 0], y[:, None] + motion[..., 1])))[::-1].astype(int)
    positions = np.clip(positions, 0, np.array([359, 479])[:, None, None])
    uncovered = past.labels()[positions[0], positions[1]] != now.labels()
    uncovered &= np.linalg.norm(motion, axis=2) < 0.5
    appeared = resize_labels(uncovered.astype(np.uint8), SIZE) > 0
    assert appeared.sum() > 50
    assert result[appeared].mean() < 0.5 * result.mean()


def test_confidence_is_0_for_points_from_outside() -> None:
    luma = lumas(4, 30, "static")[0]
    shifted = np.zeros((*SIZE, 2), np.float32)
    shifted[..., 0] = -20
    result = estimate_confidence(np.roll(luma, -20, axis=1), luma, -shifted)
    assert not result[:, -19:].any()
    result = estimate_confidence(np.roll(luma, 20, axis=1), luma, shifted)
    assert not result[:, :19].any()


def test_neighbors_of_a_doubtful_pixel_are_doubtful() -> None:
    before = np.tile(np.linspace(20, 180, SIZE[1]).astype(np.uint8), (SIZE[0], 1))
    now = before.copy()
    now[80, 50] = 255
    result = estimate_confidence(before, now, np.zeros((*SIZE, 2), np.float32))
    assert result[78:83, 48:53].max() < 0.1  # one pixel for the blur, one for the neighbors
    assert result[80, [46, 54]].min() > 0.9


def test_a_common_change_of_brightness_keeps_the_confidence() -> None:
    before, now = lumas(4, 30, "drive")
    motion = estimate_flow(before, now)
    darker = (now * 0.6).astype(np.uint8)
    assert np.abs(estimate_confidence(before, darker, motion) - estimate_confidence(before, now, motion)).mean() < 0.1
    assert not is_cut(estimate_confidence(before, darker, estimate_flow(before, darker)))


def test_fast_driving_is_no_cut() -> None:
    images = [compute_luma(draw(seed, k, "drive").image) for seed in (0, 4, 7) for k in (29, 30)]
    cuts = [is_cut(estimate_confidence(a, b, estimate_flow(a, b))) for a, b in pairwise(images)]
    assert cuts == [False, True, False, True, False]
    fast = compute_luma(render(4, 30, 480, 360, rate=5).image), compute_luma(render(4, 31, 480, 360, rate=5).image)
    assert not is_cut(estimate_confidence(*fast, estimate_flow(*fast)))


def test_resize_motion_scales_vectors() -> None:
    motion = np.full((*SIZE, 2), (2.0, 3.0), np.float32)
    np.testing.assert_allclose(resize_motion(motion, (SIZE[0] * 2, SIZE[1] * 3)), np.full((352, 720, 2), (6.0, 6.0)))


def test_resize_motion_resizes_and_scales() -> None:
    motion = np.random.default_rng(0).normal(size=(*SIZE, 2)).astype(np.float32)
    expected = cv2.resize(motion, (320, 192)) * np.array([320 / SIZE[1], 192 / SIZE[0]])
    resized = resize_motion(motion, (192, 320))
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, rtol=1e-6)


def test_warp_samples_at_the_end_of_each_vector() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    motion = np.full((3, 4, 2), (1.0, 0.5), np.float32)
    np.testing.assert_allclose(warp(array, motion)[:2, :3], (array[:2, 1:] + array[1:, 1:]) / 2, atol=1e-5)


@pytest.mark.parametrize("light", [0.5, 0.7])
def test_a_jump_of_the_exposure_is_not_taken_for_motion(light: float) -> None:
    before, now = lumas(4, 30, "pan")
    dimmed = (now * light).astype(np.uint8)
    bare = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    bare.setFinestScale(1)
    uncompensated = np.asarray(bare.calc(dimmed, before, None), np.float32)  # type: ignore[call-overload]
    truth = exact(4, 30, "pan")
    wrong = error(estimate_flow(before, dimmed), truth).mean()
    assert wrong < 1.3 * error(estimate_flow(before, now), truth).mean()
    assert wrong < 0.7 * error(uncompensated, truth).mean()


STILL = np.zeros((*SIZE, 2), np.float32)


def texture() -> NDArray[np.uint8]:
    noise = np.random.default_rng(2).integers(60, 200, SIZE, dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (5, 5), 1.2), np.uint8)


def test_a_new_object_is_a_mismatch_and_texture_that_is_off_by_a_pixel_is_none() -> None:
    before = texture()
    assert not find_mismatch(before, before, STILL).any()
    shifted = np.roll(before, 1, axis=1)
    assert find_mismatch(before, shifted, STILL)[:, 4:].mean() < 0.005 * 255
    now = before.copy()
    now[60:90, 100:150] = 230
    now[10:12, 10:12] = 255  # a speck
    mask = find_mismatch(before, now, STILL)
    assert mask[60:90, 100:150].all()
    mask[58:92, 98:152] = 0
    assert not mask.any()


def test_another_exposure_is_no_mismatch() -> None:
    before = texture()
    assert not find_mismatch(before, np.asarray(np.rint(before * 0.6 + 10), np.uint8), STILL).any()
    now = before.copy()
    now[:, :80] = 250  # an object as large as a third of the image
    mask = find_mismatch(before, now, STILL)
    assert mask[:, :80].all()
    assert not mask[:, 84:].any()


def test_outside_begins_two_pixels_beyond_the_border() -> None:
    motion = STILL.copy()
    motion[..., 0], motion[..., 1] = 6, -3
    mask = find_outside(motion)
    assert mask[1:, :-4].max() == 0
    assert mask[0].all()
    assert mask[:, -4:].all()
