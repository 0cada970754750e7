"""The ladder against a machine made of formulas: load comes and goes, noise is noise."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from stream_seg.keyframes.quality_ladder import FORGOTTEN, LOW, LOWER, PATIENCE, PROVEN, WARMING, Ladder

TARGET_MS = 33.0
NETWORK_MS = (14.0, 7.0, 4.7, 2.8, 0.8, 0.4)
"""By level: how long the network works for a frame, on the average."""
REST_MS, CARRYING_MS = 8.0, 2.5
IN_FLIGHT = 3

Drive = tuple[list[tuple[float, str, int]], dict[int, list[float]]]


def drive(load: Callable[[float], float], *, seconds: float = 40, spikes: float = 0.0, steered: bool = True) -> Drive:
    """Changes (second, reason, level) and the ages of every second, at 30 frames/s and `load` times the usual cost."""
    chance, ladder = random.Random(3), Ladder(len(NETWORK_MS), TARGET_MS)
    changes, ages, under_way = [], dict[int, list[float]](), list[tuple[int, float]]()
    for number in range(int(30 * seconds)):
        second, level = number / 30, ladder.level if steered else 0
        slowed = load(second)
        work_ms = NETWORK_MS[0] if level == 0 else CARRYING_MS + NETWORK_MS[level] / 2
        age_ms = slowed * (REST_MS + work_ms + abs(chance.gauss(0, 1.2)))
        age_ms += chance.uniform(5, 20) if chance.random() < spikes else 0
        ages.setdefault(int(second), []).append(age_ms)
        under_way.append((level, age_ms))
        if len(under_way) > IN_FLIGHT and steered:
            change = ladder.heard(*under_way.pop(0), costs_ms=[slowed * ms for ms in NETWORK_MS])
            if change:
                changes.append((second, change, ladder.level))
    return changes, ages


def warm(levels: int) -> Ladder:
    """A ladder that has forgotten the start."""
    ladder = Ladder(levels, TARGET_MS)
    for _ in range(WARMING):
        assert ladder.heard(0, 1000, costs_ms=[1] * levels) is None
    return ladder


def late_seconds(ages: dict[int, list[float]]) -> set[int]:
    """Seconds of which more than 95 % were not under the target."""
    return {second for second, taken in ages.items() if sum(age <= TARGET_MS for age in taken) < 0.95 * len(taken)}


def doubled(second: float) -> float:
    return 2.2 if 10 <= second < 20 else 1.0


def test_double_load_is_held_after_a_second_and_full_quality_returns_within_two() -> None:
    changes, ages = drive(doubled)
    assert late_seconds(ages) <= {10}
    assert all(10 <= second < 22 for second, _, _ in changes)
    assert changes[-1][1:] == ("spare", 0)


def test_without_a_ladder_double_load_is_not_held() -> None:
    _, ages = drive(doubled, steered=False)
    assert late_seconds(ages) == set(range(10, 20))


def test_nothing_happens_with_time_to_spare() -> None:
    assert drive(lambda _: 1.0)[0] == []


def test_single_late_frames_move_nothing_for_long() -> None:
    changes, _ = drive(lambda _: 1.0, seconds=120, spikes=0.01)
    assert len(changes) <= 4


@pytest.mark.parametrize("load", [1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0])
def test_steady_load_does_not_make_it_swing(load: float) -> None:
    changes, ages = drive(lambda _: load, seconds=60, spikes=0.005)
    assert len(changes) <= 20
    assert len(late_seconds(ages)) <= 3


def test_of_a_load_that_no_rung_can_bear_the_cheapest_is_the_answer_and_all_comes_back() -> None:
    changes, ages = drive(lambda second: 6.0 if 5 <= second < 15 else 1.0)
    assert max(level for _, _, level in changes) == len(NETWORK_MS) - 1
    back = [second for second, _, level in changes if level == 0]
    assert 15 <= back[-1] < 18
    assert late_seconds(ages) == set(range(5, 15))


def test_ages_of_another_rung_are_not_heard() -> None:
    ladder = warm(2)
    for _ in range(100):
        assert ladder.heard(1, 1000, costs_ms=(1, 1)) is None
    assert [ladder.heard(0, 1000, costs_ms=(1, 1)) for _ in range(3)] == [None, None, "slow"]


def frames_until_change(ladder: Ladder, age_ms: float, *, at_most: int = 1000) -> int | None:
    """Pass frames of one age, all levels at the same cost, and count them until the level changes. None: no change."""
    for number in range(1, at_most + 1):
        if ladder.heard(ladder.level, age_ms, costs_ms=[1] * ladder.levels):
            return number
    return None


def test_every_failed_climb_makes_the_next_wait_longer_until_one_holds() -> None:
    ladder, young_ms, late_ms = warm(2), 10.0, 100.0
    waits = []
    for _ in range(4):
        frames_until_change(ladder, late_ms)  # down
        waits.append(frames_until_change(ladder, young_ms))  # up again, which fails at once
    assert waits == [PATIENCE, 2 * PATIENCE, 3 * PATIENCE, 3 * PATIENCE]
    assert frames_until_change(ladder, young_ms, at_most=PROVEN) is None  # this climb holds
    frames_until_change(ladder, late_ms)
    assert frames_until_change(ladder, young_ms) == PATIENCE


def test_a_failed_climb_lowers_the_bar_until_it_is_forgotten() -> None:
    ladder, late_ms = warm(2), 100.0
    between_ms = (LOW - LOWER / 2) * TARGET_MS  # under the bar without a failure, over the bar after one
    frames_until_change(ladder, late_ms)
    assert frames_until_change(ladder, between_ms) == PATIENCE
    frames_until_change(ladder, late_ms)  # the climb failed
    assert frames_until_change(ladder, between_ms) == FORGOTTEN
