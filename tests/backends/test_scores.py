"""Test the checks of scores."""

from __future__ import annotations

import numpy as np
import pytest

from stream_seg.backends.scores import is_finite

SHAPES = [(1, 11, 19, 32), (2, 3, 7, 5), (1, 2, 3, 33), (1, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_score_that_is_not_finite_is_found(shape: tuple[int, ...], value: float) -> None:
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert is_finite(scores)
    for position in {0, scores.size // 2, scores.size - 1}:
        changed = scores.copy()
        changed.flat[position] = value
        assert not is_finite(changed)


def test_opposite_infinities_are_found() -> None:
    assert not is_finite(np.array([[[[np.inf, -np.inf]]]], np.float32))


def test_huge_scores_are_finite() -> None:
    assert is_finite(np.full((1, 3, 4, 5), np.finfo(np.float32).max))
