"""Choose the images that the int8 form of a trained network is calibrated on and compared on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from stream_seg.datasets.labelled import Pairs
from stream_seg.engines.calibration import HELD_BACK, CalibrationSet, Sample
from stream_seg.ops.resize import resize_image

IMAGE_COUNT = 62
"""Images that are calibrated on, at most."""
Item = TypeVar("Item")


def calibration_set(
    pairs: Pairs, size: tuple[int, int], *, source: str, held_back: Pairs | None = None
) -> CalibrationSet:
    """Choose up to IMAGE_COUNT evenly spaced `pairs`, resized to `size` = (height, width), with their labels.

    Accuracy is compared on `held_back`; without it on the pairs between, and with too few of those on every fourth,
    which is then left out of the calibration. `source` names the images in reports.
    """
    places = subsample(range(len(pairs)), 2 * IMAGE_COUNT)
    fit: Sequence[int]
    compared: Sequence[int]
    if held_back is not None:
        fit, compared = subsample(range(len(pairs)), IMAGE_COUNT), range(len(held_back))
    elif len(places) > IMAGE_COUNT:
        fit, compared = places[::2], places[1::2]
    else:
        fit = [place for place in places if place % HELD_BACK != HELD_BACK - 1]
        compared = places[HELD_BACK - 1 :: HELD_BACK] or places  # of up to three images none is left out
    samples = tuple(_samples(pairs if held_back is None else held_back, compared, size))
    return CalibrationSet(source, tuple(_samples(pairs, fit, size)), samples)


def subsample(items: Sequence[Item], limit: int) -> Sequence[Item]:
    """Return every n-th item from the first on, at most `limit` of them."""
    return items[:: max(1, -(-len(items) // limit))]


def _samples(pairs: Pairs, places: Sequence[int], size: tuple[int, int]) -> Iterator[Sample]:
    for place in places:
        yield Sample(f"image {place}", resize_image(pairs.images[place], size), pairs.labels[place])
