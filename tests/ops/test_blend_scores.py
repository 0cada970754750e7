"""Test the temporal filter against its parts and on synthetic drives."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stream_seg.frame import Frame
from stream_seg.ops.scores import SURE, blend_scores
from stream_seg.types import Labels
from tests.support.noisy_scores import (
    filter_labels,
    flip_rate,
    full_confidence,
    moving_edge_error,
    no_motion,
    noisy_drive,
    warp_scores,
)

Filter = Callable[[tuple[Frame, ...]], list[Labels]]


@pytest.mark.parametrize("classes", [1, 2, 11])
def test_equals_warping_then_blending(classes: int) -> None:
    random = np.random.default_rng(0)
    past, now = random.normal(0, 4, (2, classes, 19, 31)).astype(np.float32)
    motion = random.normal(0, 6, (19, 31, 2)).astype(np.float32)  # some of it out of the image
    confidence = random.uniform(0, 1, (19, 31)).astype(np.float32)
    ordered = np.sort(now, axis=0)
    margin = ordered[-1] - ordered[-2] if classes > 1 else np.inf
    share = 0.8 * confidence / (1 + (margin / SURE) ** 2)
    expected = now + share * (warp_scores(past, motion) - now)
    # OpenCV rounds positions to 1/32 of a pixel
    np.testing.assert_allclose(blend_scores(past, now, motion, confidence, weight=0.8), expected, atol=0.4)
    whole = np.rint(motion)
    expected = now + share * (warp_scores(past, whole) - now)
    np.testing.assert_allclose(blend_scores(past, now, whole, confidence, weight=0.8), expected, atol=1e-4)


def test_threads_do_not_share_memory() -> None:
    random = np.random.default_rng(1)
    past, now = random.normal(0, 4, (2, 4, 11, 96, 160)).astype(np.float32)
    motion, confidence = random.normal(0, 6, (96, 160, 2)).astype(np.float32), np.ones((96, 160), np.float32)

    def blend(k: int) -> np.ndarray:
        return blend_scores(past[k % 4], now[k % 4], motion, confidence, weight=0.8)

    expected = [blend(k) for k in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for k, result in enumerate(threads.map(blend, range(40))):
            np.testing.assert_array_equal(result, expected[k % 4])


def crossing() -> tuple[Frame, ...]:
    """Return a van crossing the view of a static camera; the network is nearly perfect, so a trail would show."""
    return noisy_drive(28, first=14, unsure=0.7, seed=4, camera="static", shake=0, crossing=True)


def panning() -> tuple[Frame, ...]:
    return noisy_drive(12, unsure=1.2, seed=4, camera="pan", rate=15)


def leaves_no_trail(filter_: Filter) -> bool:
    frames = crossing()
    return moving_edge_error(frames, filter_(frames)) <= 1.02 * moving_edge_error(frames, raw(frames))


def reduces_flips(filter_: Filter) -> bool:
    frames = panning()
    return flip_rate(frames, filter_(frames)) <= 0.7 * flip_rate(frames, raw(frames))


def raw(frames: tuple[Frame, ...]) -> list[Labels]:
    return [frame.semantic.labels for frame in frames]  # type: ignore[union-attr]


def without_confidence(frames: tuple[Frame, ...]) -> list[Labels]:
    return filter_labels(frames, confidence=full_confidence)


def without_motion(frames: tuple[Frame, ...]) -> list[Labels]:
    return filter_labels(frames, flow=no_motion)


def without_weight(frames: tuple[Frame, ...]) -> list[Labels]:
    return filter_labels(frames, weight=0)


def test_a_crossing_van_leaves_no_trail() -> None:
    assert leaves_no_trail(filter_labels)
    assert not leaves_no_trail(without_confidence)


def test_points_keep_their_class_while_the_camera_pans() -> None:
    assert reduces_flips(filter_labels)
    assert not reduces_flips(without_motion)
    assert not reduces_flips(without_weight)
