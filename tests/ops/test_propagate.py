"""Test the propagation of scores and labels along motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from stream_seg.ops.labels import AMBIGUOUS, unanimous_labels, upsampled_argmax
from stream_seg.ops.motion import absolute_positions
from stream_seg.ops.propagate import compose_motion, propagate_labels
from stream_seg.ops.scores import compute_margins, propagate_scores
from tests.support.noisy_scores import warp_scores

NOISE = np.random.default_rng(0)
SCORES = NOISE.normal(size=(5, 44, 60)).astype(np.float32)


def shift(dx: float, dy: float) -> np.ndarray:
    return np.full((44, 60, 2), (dx, dy), np.float32)


def test_one_pass_equals_a_pass_for_every_class() -> None:
    motion = NOISE.normal(scale=9, size=(44, 60, 2)).astype(np.float32)
    positions = absolute_positions(motion)
    inside = ((positions >= 0) & (positions <= (59, 43))).all(axis=2)
    by_class = warp_scores(SCORES, motion)
    # the weights of OpenCV have five bits
    np.testing.assert_allclose(propagate_scores(SCORES, motion)[:, inside], by_class[:, inside], atol=0.15)
    np.testing.assert_allclose(propagate_scores(SCORES, shift(0, 0)), SCORES, atol=1e-5)


def test_scores_move_with_the_image() -> None:
    np.testing.assert_allclose(propagate_scores(SCORES, shift(3, -2))[:, 2:, :-3], SCORES[:, :-2, 3:], atol=1e-5)


def test_the_border_is_replicated() -> None:
    np.testing.assert_allclose(
        propagate_scores(SCORES, shift(100, 0)), np.repeat(SCORES[:, :, -1:], 60, axis=2), atol=1e-5
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_any_motion_leads_to_a_point_of_the_image(value: float) -> None:
    motion = shift(0, 0)
    motion[20:, 30:] = value
    scores = propagate_scores(SCORES, motion)
    np.testing.assert_allclose(scores[:, :20], SCORES[:, :20], atol=1e-5)
    assert np.isfinite(scores).all()
    assert propagate_labels(SCORES, unanimous_labels(SCORES), motion, size=(88, 120)).max() < len(SCORES)


def test_composed_motions_add_up() -> None:
    np.testing.assert_allclose(compose_motion(shift(3, 1), shift(2, -4)), shift(5, -3))
    first = shift(0, 0)
    first[:, 30:] = (7, 0)  # first only the right half moves, then all of it by 10 pixels
    both = compose_motion(first, shift(10, 0))
    assert both[20, 25, 0] == 17
    assert both[20, 5, 0] == 10


def test_margins_are_one_where_the_network_is_sure() -> None:
    scores = np.zeros((3, 1, 2), np.float32)
    scores[1, 0, 0] = 50
    np.testing.assert_allclose(compute_margins(scores), [[1, 0]], atol=1e-6)


@pytest.mark.parametrize("size", [(88, 120), (44, 60), (70, 33)])
def test_propagated_labels_are_those_of_propagated_scores(size: tuple[int, int]) -> None:
    smooth = np.stack([cv2.GaussianBlur(plane, (9, 9), 3) for plane in SCORES])
    unanimous = unanimous_labels(smooth)
    assert 0.1 < (unanimous == AMBIGUOUS).mean() < 0.9  # both branches run
    for motion in (shift(0, 0), shift(3, -2), shift(100, -70)):  # whole pixels: sampling twice changes nothing
        inner = np.s_[:, :] if motion[0, 0, 0] in (0, 100) else np.s_[8:-4, 4:-8]
        once = propagate_labels(smooth, unanimous, motion, size=size)
        np.testing.assert_array_equal(once[inner], upsampled_argmax(propagate_scores(smooth, motion), size)[inner])
    noise = NOISE.normal(scale=30, size=(44, 60, 2)).astype(np.float32)
    blurred = np.asarray(cv2.GaussianBlur(noise, (0, 0), 6), np.float32)
    once = propagate_labels(smooth, unanimous, blurred, size=size)
    assert (once != upsampled_argmax(propagate_scores(smooth, blurred), size)).mean() < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2)])
def test_scores_of_a_single_row_or_column(shape: tuple[int, int]) -> None:
    scores = SCORES[:, : shape[0], : shape[1]]
    motion = np.full((*shape, 2), 1, np.float32)
    moved = propagate_scores(scores, motion)
    np.testing.assert_allclose(moved, warp_scores(scores, motion), atol=1e-5)
    labels = propagate_labels(scores, unanimous_labels(scores), motion, size=(8, 9))
    np.testing.assert_array_equal(labels, upsampled_argmax(moved, (8, 9)))
