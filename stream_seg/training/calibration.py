"""What the int8 form of a trained network learns its ranges from, and the pictures on which it is then judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from stream_seg.datasets.labelled import Pairs
from stream_seg.engines.calibration import HELD_BACK, CalibrationSet, Sample
from stream_seg.ops.resize import reduced

CALIBRATED_ON = 62
Item = TypeVar("Item")


def calibration(pairs: Pairs, size: tuple[int, int], *, shown: str, held: Pairs | None = None) -> CalibrationSet:
    """Up to CALIBRATED_ON of `pairs`, evenly spaced, at `size` = (height, width), and with their truth.

    Judged is on `held`, else on pictures between those, else, where there are too few, on every fourth, left out of
    the calibration.
    """
    every = spaced(range(len(pairs)), 2 * CALIBRATED_ON)
    fit: Sequence[int]
    back: Sequence[int]
    if held is not None:
        fit, back = spaced(range(len(pairs)), CALIBRATED_ON), range(len(held))
    elif len(every) > CALIBRATED_ON:
        fit, back = every[::2], every[1::2]
    else:
        fit = [place for place in every if place % HELD_BACK != HELD_BACK - 1]
        back = every[HELD_BACK - 1 :: HELD_BACK] or every  # of three pictures none can be spared
    judged = tuple(_samples(pairs if held is None else held, back, size))
    return CalibrationSet(shown, tuple(_samples(pairs, fit, size)), judged)


def spaced(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most `most` of them: every n-th, from the first on."""
    return items[:: max(1, -(-len(items) // most))]


def _samples(pairs: Pairs, places: Sequence[int], size: tuple[int, int]) -> Iterator[Sample]:
    for place in places:
        yield Sample(f"picture {place}", reduced(pairs.images[place], size), pairs.labels[place])
