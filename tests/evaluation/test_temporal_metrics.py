"""The measures on label maps small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.evaluation.temporal_metrics import boundary_f, reference_flow, still, video_consistency, visible
from stream_seg.ops.motion import luma
from stream_seg.synth import render

Labels = NDArray[np.uint8]


def plain(label: int = 0) -> Labels:
    return np.full((4, 5), label, np.uint8)


def test_consistency_counts_what_stays_of_what_should() -> None:
    truth = [plain() for _ in range(3)]
    truth[1][0] = 1  # this row changes: not counted
    said = [plain(2) for _ in range(3)]  # wrong, but steadily
    assert video_consistency(truth, said, 3) == 1
    said[2][1, 0] = 3
    assert video_consistency(truth, said, 3) == pytest.approx(14 / 15)
    assert video_consistency(truth, said, 2) == pytest.approx((1 + 14 / 15) / 2)


def test_void_is_not_counted_and_a_short_video_has_no_consistency() -> None:
    truth, said = [plain(), plain()], [plain(), plain()]
    for labels in truth:
        labels[0] = 255
    said[1][0] = 1
    assert video_consistency(truth, said, 2) == 1
    assert video_consistency(truth, said, 3) is None


def halves(edge: int) -> Labels:
    labels = np.zeros((200, 300), np.uint8)
    labels[:, edge:] = 1
    return labels


def test_outlines_within_three_pixels_are_right() -> None:
    assert boundary_f(halves(150), halves(150), classes=2) == pytest.approx(1)
    assert boundary_f(halves(150), halves(152), classes=2) == pytest.approx(1)
    assert boundary_f(halves(150), halves(160), classes=2) == pytest.approx(0, abs=1e-6)
    spoiled = halves(150)
    spoiled[:, 50:52] = 1
    found = boundary_f(halves(150), spoiled, classes=2)
    assert found is not None
    assert found == pytest.approx(0.5, abs=0.01)  # a third of the said outline is right, all of the true one is found


def test_void_has_no_outline() -> None:
    truth = np.full((200, 300), 255, np.uint8)
    assert boundary_f(truth, halves(150), classes=2) is None


def test_the_reference_flow_is_near_the_exact_motion_where_there_is_something_to_follow() -> None:
    past, now = (render(4, k, 480, 360, rate=15, move="pan") for k in (40, 41))
    motion, exact = reference_flow(past.image, now.image), now.motion()
    textured = np.abs(np.gradient(luma(now.image, (360, 480)).astype(np.float32), axis=1)) > 10
    wrong, length = (np.median(np.linalg.norm(m, axis=2)[textured]) for m in (motion - exact, exact))
    assert wrong < 0.3 * length


def test_what_was_hidden_is_not_visible() -> None:
    past, now = (render(4, k, 480, 360, move="static", shake=0, crossing=True) for k in (40, 41))
    seen = visible(past.image, now.image, now.motion())
    moved = np.abs(luma(now.image, (360, 480)).astype(int) - luma(past.image, (360, 480))) > 60
    behind = moved & still(now.motion())  # where the van stood a moment ago
    assert behind.sum() > 100
    assert seen[behind].mean() < 0.2
    assert seen.mean() > 0.95
