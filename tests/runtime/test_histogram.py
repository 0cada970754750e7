from __future__ import annotations

import numpy as np

from stream_seg.runtime.histogram import BOUNDS_MS, RING_SIZE, Ages, Samples


def test_percentiles_cover_the_latest_values_and_the_histogram_all() -> None:
    samples = Samples()
    values = np.r_[np.full(10, 9_999.0), np.linspace(0, 100, RING_SIZE)]
    for value in values:
        samples.add(value)
    assert samples.percentile(50) == np.float32(np.percentile(values[10:], 50))
    assert samples.at_most() == [*(int((values <= bound).sum()) for bound in BOUNDS_MS), len(values)]
    assert np.isclose(samples.total, values.sum())


def test_without_values_everything_is_zero() -> None:
    assert Samples().percentile(99) == 0
    assert not any(Samples().at_most())


def test_a_frame_is_late_only_beyond_the_deadline() -> None:
    ages = Ages(deadline_ms=50)
    for age in (49, 50, 50.1, 400):
        ages.add(age)
    assert ages.late == 2
