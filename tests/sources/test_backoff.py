import random

import numpy as np

from stream_seg.sources.backoff import CAP_S, Backoff, Stillness


def attempts(seed: int, *, outage_s: float) -> list[float]:
    """When a camera that is away is asked, by a clock of the test's own."""
    backoff, now_s, at = Backoff(random.Random(seed).random), 0.0, []
    while now_s < outage_s:
        at.append(now_s)
        now_s += backoff.failed()
    return at


def test_an_hour_of_outage_is_at_most_130_attempts_and_none_waits_longer_than_the_cap() -> None:
    for seed in range(50):
        at = attempts(seed, outage_s=3600)
        assert 100 < len(at) <= 130
        waits = np.diff(at)
        assert waits.max() <= CAP_S
        assert waits[0] <= 0.25
        assert at[4] < 4  # a camera that restarts is found soon


def test_eight_cameras_that_fall_together_do_not_come_back_together() -> None:
    cameras = [attempts(seed, outage_s=3600) for seed in range(8)]
    late = np.sort(np.concatenate([np.array(at)[10:] for at in cameras]))
    together = np.diff(late) < 0.1
    assert together.mean() < 0.1
    same = np.sort(np.concatenate([np.array(cameras[0])[10:]] * 8))
    assert (np.diff(same) < 0.1).mean() > 0.8  # what it would be without chance


def test_after_a_good_connection_the_waits_are_short_again() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.failed() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.steady()
    assert backoff.failed() == 0.25


def test_a_picture_is_still_until_more_than_rounding_changes() -> None:
    still, picture = Stillness(), np.full((64, 64, 3), 100, np.uint8)
    assert still.since(picture, 1) == 1
    assert still.since(picture + np.uint8(1), 2) == 1
    changed = picture.copy()
    changed[8:16, 8:16] = 130
    assert still.since(changed, 3) == 3
    assert still.since(picture[:32], 4) == 4
