"""The filter in one pass against its parts, and what it must do on drawn drives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stream_seg.frame import Frame
from stream_seg.ops.blend_scores import SURE, carried_on
from stream_seg.ops.motion import warped_scores
from stream_seg.types import Labels
from tests.support.noisy_scores import believed_fully, drive, error_at_moving_edges, filtered, flips, still

Filter = Callable[[tuple[Frame, ...]], list[Labels]]


@pytest.mark.parametrize("classes", [1, 2, 11])
def test_equals_warping_then_mixing(classes: int) -> None:
    random = np.random.default_rng(0)
    past, now = random.normal(0, 4, (2, classes, 19, 31)).astype(np.float32)
    motion = random.normal(0, 6, (19, 31, 2)).astype(np.float32)  # out of the picture too
    believed = random.uniform(0, 1, (19, 31)).astype(np.float32)
    ordered = np.sort(now, axis=0)
    margin = ordered[-1] - ordered[-2] if classes > 1 else np.inf
    share = 0.8 * believed / (1 + (margin / SURE) ** 2)
    expected = now + share * (warped_scores(past, motion) - now)
    # OpenCV rounds places to 1/32 of a pixel
    np.testing.assert_allclose(carried_on(past, now, motion, believed, weight=0.8), expected, atol=0.4)
    whole = np.rint(motion)
    expected = now + share * (warped_scores(past, whole) - now)
    np.testing.assert_allclose(carried_on(past, now, whole, believed, weight=0.8), expected, atol=1e-4)


def crossing() -> tuple[Frame, ...]:
    """A van comes into a standing camera's view; the network is nearly perfect, so that a trail would show."""
    return drive(28, first=14, unsure=0.7, seed=4, camera="static", shake=0, crossing=True)


def panning() -> tuple[Frame, ...]:
    return drive(12, unsure=1.2, seed=4, camera="pan", rate=15)


def leaves_no_trail(smooth: Filter) -> bool:
    frames = crossing()
    return error_at_moving_edges(frames, smooth(frames)) <= 1.02 * error_at_moving_edges(frames, raw(frames))


def steadies(smooth: Filter) -> bool:
    frames = panning()
    return flips(frames, smooth(frames)) <= 0.7 * flips(frames, raw(frames))


def raw(frames: tuple[Frame, ...]) -> list[Labels]:
    return [frame.semantic.labels for frame in frames]  # type: ignore[union-attr]


def without_confidence(frames: tuple[Frame, ...]) -> list[Labels]:
    return filtered(frames, believed_of=believed_fully)


def without_motion(frames: tuple[Frame, ...]) -> list[Labels]:
    return filtered(frames, motion_of=still)


def without_weight(frames: tuple[Frame, ...]) -> list[Labels]:
    return filtered(frames, weight=0)


def test_what_crosses_the_view_leaves_no_trail() -> None:
    assert leaves_no_trail(filtered)
    assert not leaves_no_trail(without_confidence)


def test_points_keep_their_class_while_the_camera_turns() -> None:
    assert steadies(filtered)
    assert not steadies(without_motion)
    assert not steadies(without_weight)
