"""The quality ladder, on a simulated machine whose load and noise are formulas."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from stream_seg.keyframes.latency_control import (
    CLIMB_FRAMES,
    CLIMB_SHARE,
    FAILURE_SHARE,
    FORGET_FRAMES,
    PROVEN_FRAMES,
    WARMUP_FRAMES,
    QualityLadder,
)

TARGET_MS = 33.0
NETWORK_MS = (14.0, 7.0, 4.7, 2.8, 0.8, 0.4)
"""Average time of the network per frame, by level."""
REST_MS, WARP_MS = 8.0, 2.5
IN_FLIGHT = 3

Drive = tuple[list[tuple[float, str, int]], dict[int, list[float]]]


def drive(
    load: Callable[[float], float], *, seconds: float = 40, spikes: float = 0.0, use_ladder: bool = True
) -> Drive:
    """Return changes (second, reason, level) and ages by second, at 30 frames/s and `load` times the usual cost."""
    rng, ladder = random.Random(3), QualityLadder(len(NETWORK_MS), TARGET_MS)
    changes, ages, in_flight = [], dict[int, list[float]](), list[tuple[int, float]]()
    for number in range(int(30 * seconds)):
        second, level = number / 30, ladder.level if use_ladder else 0
        slowdown = load(second)
        work_ms = NETWORK_MS[0] if level == 0 else WARP_MS + NETWORK_MS[level] / 2
        age_ms = slowdown * (REST_MS + work_ms + abs(rng.gauss(0, 1.2)))
        age_ms += rng.uniform(5, 20) if rng.random() < spikes else 0
        ages.setdefault(int(second), []).append(age_ms)
        in_flight.append((level, age_ms))
        if len(in_flight) > IN_FLIGHT and use_ladder:
            change = ladder.update(*in_flight.pop(0), costs_ms=[slowdown * ms for ms in NETWORK_MS])
            if change:
                changes.append((second, change, ladder.level))
    return changes, ages


def warm(levels: int) -> QualityLadder:
    """Return a ladder after its warm-up."""
    ladder = QualityLadder(levels, TARGET_MS)
    for _ in range(WARMUP_FRAMES):
        assert ladder.update(0, 1000, costs_ms=[1] * levels) is None
    return ladder


def late_seconds(ages: dict[int, list[float]]) -> set[int]:
    """Return the seconds in which less than 95 % of the frames were younger than the target."""
    return {second for second, values in ages.items() if sum(age <= TARGET_MS for age in values) < 0.95 * len(values)}


def doubled(second: float) -> float:
    return 2.2 if 10 <= second < 20 else 1.0


def test_double_load_is_compensated_within_a_second_and_full_quality_returns_within_two() -> None:
    changes, ages = drive(doubled)
    assert late_seconds(ages) <= {10}
    assert all(10 <= second < 22 for second, _, _ in changes)
    assert changes[-1][1:] == ("spare", 0)


def test_without_a_ladder_double_load_is_not_compensated() -> None:
    _, ages = drive(doubled, use_ladder=False)
    assert late_seconds(ages) == set(range(10, 20))


def test_the_level_stays_with_time_to_spare() -> None:
    assert drive(lambda _: 1.0)[0] == []


def test_single_late_frames_rarely_change_the_level() -> None:
    changes, _ = drive(lambda _: 1.0, seconds=120, spikes=0.01)
    assert len(changes) <= 4


@pytest.mark.parametrize("load", [1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0])
def test_steady_load_does_not_make_the_level_oscillate(load: float) -> None:
    changes, ages = drive(lambda _: load, seconds=60, spikes=0.005)
    assert len(changes) <= 20
    assert len(late_seconds(ages)) <= 3


def test_overload_leads_to_the_cheapest_level_and_full_quality_returns() -> None:
    changes, ages = drive(lambda second: 6.0 if 5 <= second < 15 else 1.0)
    assert max(level for _, _, level in changes) == len(NETWORK_MS) - 1
    back = [second for second, _, level in changes if level == 0]
    assert 15 <= back[-1] < 18
    assert late_seconds(ages) == set(range(5, 15))


def test_ages_of_other_levels_are_ignored() -> None:
    ladder = warm(2)
    for _ in range(100):
        assert ladder.update(1, 1000, costs_ms=(1, 1)) is None
    assert [ladder.update(0, 1000, costs_ms=(1, 1)) for _ in range(3)] == [None, None, "slow"]


def frames_until_change(ladder: QualityLadder, age_ms: float, *, at_most: int = 1000) -> int | None:
    """Pass frames of one age, all levels at the same cost, and count them until the level changes. None: no change."""
    for number in range(1, at_most + 1):
        if ladder.update(ladder.level, age_ms, costs_ms=[1] * ladder.levels):
            return number
    return None


def test_every_failed_climb_makes_the_next_wait_longer_until_one_holds() -> None:
    ladder, young_ms, late_ms = warm(2), 10.0, 100.0
    waits = []
    for _ in range(4):
        frames_until_change(ladder, late_ms)  # down
        waits.append(frames_until_change(ladder, young_ms))  # up again, which fails at once
    assert waits == [CLIMB_FRAMES, 2 * CLIMB_FRAMES, 3 * CLIMB_FRAMES, 3 * CLIMB_FRAMES]
    assert frames_until_change(ladder, young_ms, at_most=PROVEN_FRAMES) is None  # this climb holds
    frames_until_change(ladder, late_ms)
    assert frames_until_change(ladder, young_ms) == CLIMB_FRAMES


def test_a_failed_climb_lowers_the_limit_until_it_is_forgotten() -> None:
    ladder, late_ms = warm(2), 100.0
    between_ms = (CLIMB_SHARE - FAILURE_SHARE / 2) * TARGET_MS  # below the limit without a failure, above after one
    frames_until_change(ladder, late_ms)
    assert frames_until_change(ladder, between_ms) == CLIMB_FRAMES
    frames_until_change(ladder, late_ms)  # the climb failed
    assert frames_until_change(ladder, between_ms) == FORGET_FRAMES
