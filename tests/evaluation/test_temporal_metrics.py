"""Test the metrics on label maps small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.evaluation.temporal_metrics import (
    boundary_f,
    reference_flow,
    still_mask,
    video_consistency,
    visible_mask,
)
from stream_seg.ops.motion import compute_luma
from stream_seg.synth import render

Labels = NDArray[np.uint8]


def plain(label: int = 0) -> Labels:
    return np.full((4, 5), label, np.uint8)


def test_consistency_counts_pixels_whose_class_should_stay() -> None:
    truth = [plain() for _ in range(3)]
    truth[1][0] = 1  # this row changes: not counted
    predicted = [plain(2) for _ in range(3)]  # wrong, but constant
    assert video_consistency(truth, predicted, 3) == 1
    predicted[2][1, 0] = 3
    assert video_consistency(truth, predicted, 3) == pytest.approx(14 / 15)
    assert video_consistency(truth, predicted, 2) == pytest.approx((1 + 14 / 15) / 2)


def test_void_is_not_counted_and_a_short_video_has_no_consistency() -> None:
    truth, predicted = [plain(), plain()], [plain(), plain()]
    for labels in truth:
        labels[0] = 255
    predicted[1][0] = 1
    assert video_consistency(truth, predicted, 2) == 1
    assert video_consistency(truth, predicted, 3) is None


def halves(edge: int) -> Labels:
    labels = np.zeros((200, 300), np.uint8)
    labels[:, edge:] = 1
    return labels


def test_outlines_within_three_pixels_are_correct() -> None:
    assert boundary_f(halves(150), halves(150), classes=2) == pytest.approx(1)
    assert boundary_f(halves(150), halves(152), classes=2) == pytest.approx(1)
    assert boundary_f(halves(150), halves(160), classes=2) == pytest.approx(0, abs=1e-6)
    spoiled = halves(150)
    spoiled[:, 50:52] = 1
    score = boundary_f(halves(150), spoiled, classes=2)
    assert score is not None
    assert score == pytest.approx(0.5, abs=0.01)  # precision is a third, recall is 1


def test_void_has_no_outline() -> None:
    truth = np.full((200, 300), 255, np.uint8)
    assert boundary_f(truth, halves(150), classes=2) is None


def test_the_reference_flow_is_near_the_exact_motion_on_texture() -> None:
    past, now = (render(4, k, 480, 360, rate=15, move="pan") for k in (40, 41))
    motion, exact = reference_flow(past.image, now.image), now.motion()
    textured = np.abs(np.gradient(compute_luma(now.image, (360, 480)).astype(np.float32), axis=1)) > 10
    wrong, length = (np.median(np.linalg.norm(m, axis=2)[textured]) for m in (motion - exact, exact))
    assert wrong < 0.3 * length


def test_hidden_points_are_not_visible() -> None:
    past, now = (render(4, k, 480, 360, move="static", shake=0, crossing=True) for k in (40, 41))
    visible = visible_mask(past.image, now.image, now.motion())
    moved = np.abs(compute_luma(now.image, (360, 480)).astype(int) - compute_luma(past.image, (360, 480))) > 60
    behind = moved & still_mask(now.motion())  # where the van was in the previous frame
    assert behind.sum() > 100
    assert visible[behind].mean() < 0.2
    assert visible.mean() > 0.95
