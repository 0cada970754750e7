"""Retry delays, simulated without waiting, and the detection of frozen video."""

import random

import numpy as np

from stream_seg.sources.backoff import LONGEST_WAIT_S, Backoff, FreezeDetector


def attempt_times_s(seed: int, *, outage_s: float) -> list[float]:
    """Return the times at which a camera that is away is tried, on a simulated clock."""
    backoff, now_s, times_s = Backoff(random.Random(seed).random), 0.0, []
    while now_s < outage_s:
        times_s.append(now_s)
        now_s += backoff.next_wait_s()
    return times_s


def test_an_hour_of_outage_takes_at_most_130_attempts_and_no_wait_exceeds_the_limit() -> None:
    for seed in range(50):
        times_s = attempt_times_s(seed, outage_s=3600)
        assert 100 < len(times_s) <= 130
        waits_s = np.diff(times_s)
        assert waits_s.max() <= LONGEST_WAIT_S
        assert waits_s[0] <= 0.25
        assert times_s[4] < 4  # a camera that restarts is found soon


def test_eight_cameras_that_fail_together_do_not_return_together() -> None:
    cameras = [attempt_times_s(seed, outage_s=3600) for seed in range(8)]
    late = np.sort(np.concatenate([np.array(times_s)[10:] for times_s in cameras]))
    together = np.diff(late) < 0.1
    assert together.mean() < 0.1
    same = np.sort(np.concatenate([np.array(cameras[0])[10:]] * 8))
    assert (np.diff(same) < 0.1).mean() > 0.8  # without randomness


def test_waits_are_short_again_after_a_good_connection() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next_wait_s() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next_wait_s() == 0.25


def test_an_image_is_unchanged_until_more_than_rounding_differs() -> None:
    detector, image = FreezeDetector(), np.full((64, 64, 3), 100, np.uint8)
    assert detector.unchanged_since_ns(image, 1) == 1
    assert detector.unchanged_since_ns(image + np.uint8(1), 2) == 1
    changed = image.copy()
    changed[8:16, 8:16] = 130
    assert detector.unchanged_since_ns(changed, 3) == 3
    assert detector.unchanged_since_ns(image[:32], 4) == 4
