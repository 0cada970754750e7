"""Motion against the drawn drive's own, which is exact."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.ops.labels import resized_labels
from stream_seg.ops.motion import SIZE, Motion, confidence, flow, is_cut, luma, resized, warped
from stream_seg.ops.scene import Drawing, Move, render

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


@pytest.mark.parametrize(
    ("move", "median", "share"), [("drive", 1.0, 0.5), ("pan", 0.3, 0.1), ("static", 0.1, 0.02)]
)
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
