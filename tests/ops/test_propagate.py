"""What a key frame said, moved."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from stream_seg.ops.labels import upsampled_argmax
from stream_seg.ops.motion import places, warped_scores
from stream_seg.ops.propagate import UNSETTLED, composed, margins, moved, moved_labels, settled

NOISE = np.random.default_rng(0)
SCORES = NOISE.normal(size=(5, 44, 60)).astype(np.float32)


def shift(dx: float, dy: float) -> np.ndarray:
    return np.full((44, 60, 2), (dx, dy), np.float32)


def test_one_pass_says_what_a_pass_for_every_class_says() -> None:
    motion = NOISE.normal(scale=9, size=(44, 60, 2)).astype(np.float32)
    where = places(motion)
    inside = ((where >= 0) & (where <= (59, 43))).all(axis=2)
    by_class = warped_scores(SCORES, motion)
    # OpenCV's weights have five bits
    np.testing.assert_allclose(moved(SCORES, motion)[:, inside], by_class[:, inside], atol=0.15)
    np.testing.assert_allclose(moved(SCORES, shift(0, 0)), SCORES, atol=1e-5)


def test_scores_move_with_the_picture() -> None:
    np.testing.assert_allclose(moved(SCORES, shift(3, -2))[:, 2:, :-3], SCORES[:, :-2, 3:], atol=1e-5)


def test_the_border_goes_on_outside() -> None:
    np.testing.assert_allclose(moved(SCORES, shift(100, 0)), np.repeat(SCORES[:, :, -1:], 60, axis=2), atol=1e-5)


def test_motions_add_up_along_the_way() -> None:
    np.testing.assert_allclose(composed(shift(3, 1), shift(2, -4)), shift(5, -3))
    since = shift(0, 0)
    since[:, 30:] = (7, 0)  # only the right half has moved so far; now all of it comes from 10 pixels to the right
    both = composed(since, shift(10, 0))
    assert both[20, 25, 0] == 17
    assert both[20, 5, 0] == 10


def test_margins_are_one_where_the_network_is_sure() -> None:
    scores = np.zeros((3, 1, 2), np.float32)
    scores[1, 0, 0] = 50
    np.testing.assert_allclose(margins(scores), [[1, 0]], atol=1e-6)


def test_pixels_are_settled_where_four_neighbours_agree() -> None:
    scores = np.zeros((2, 3, 4), np.float32)
    scores[1, :, 2:] = 1
    np.testing.assert_array_equal(settled(scores)[:2, :3], [[0, UNSETTLED, 1]] * 2)


@pytest.mark.parametrize("size", [(88, 120), (44, 60), (70, 33)])
def test_labels_along_a_motion_are_those_of_the_moved_scores(size: tuple[int, int]) -> None:
    smooth = np.stack([cv2.GaussianBlur(plane, (9, 9), 3) for plane in SCORES])
    known = settled(smooth)
    assert 0.1 < (known == UNSETTLED).mean() < 0.9  # both ways are gone
    for motion in (shift(0, 0), shift(3, -2), shift(100, -70)):  # whole pixels: sampled twice is sampled once
        inner = np.s_[:, :] if motion[0, 0, 0] in (0, 100) else np.s_[8:-4, 4:-8]
        once = moved_labels(smooth, known, motion, size=size)
        np.testing.assert_array_equal(once[inner], upsampled_argmax(moved(smooth, motion), size)[inner])
    noise = NOISE.normal(scale=30, size=(44, 60, 2)).astype(np.float32)
    blurred = np.asarray(cv2.GaussianBlur(noise, (0, 0), 6), np.float32)
    once = moved_labels(smooth, known, blurred, size=size)
    assert (once != upsampled_argmax(moved(smooth, blurred), size)).mean() < 0.05
