"""The accuracy gate: figures that can be checked by hand, and what is within the limits."""

from __future__ import annotations

import numpy as np
import pytest

from stream_seg.engines.accuracy_gate import Compared, Limits, as_report, compared, refusal
from stream_seg.types import VOID, Classes, Labels

CLASSES = Classes(("a", "b"), ((0, 0, 0), (255, 255, 255)))


def labels(*rows: list[int]) -> Labels:
    return np.array(rows, np.uint8)


def test_the_same_labels() -> None:
    same = labels([0, 0, 1, 1])
    found = compared([Compared("x", same, same), Compared("y", same, same)], CLASSES)
    assert (found["pictures"], found["agreement"], found["worst"], found["miou"], found["labelled"]) == (2, 1, 1, 1, 0)
    assert (found["miou_f32"], found["miou_lower"], found["miou_loss"]) == (None, None, None)
    assert refusal(found, Limits()) is None


def test_agreement_and_the_worst_picture() -> None:
    f32 = labels([0, 0, 1, 1])
    pictures = [Compared("good", f32, f32), Compared("bad", f32, labels([0, 0, 1, 0])), Compared("fine", f32, f32)]
    found = compared(pictures, CLASSES)
    assert found["agreement"] == pytest.approx(11 / 12)
    assert (found["worst"], found["worst_picture"]) == (0.75, "bad")
    assert found["miou"] == pytest.approx((6 / 7 + 5 / 6) / 2)
    assert refusal(found, Limits()) == (
        "91.67 % of the labels are those of f32, 99 % are needed (worst picture bad: 75.00 %)"
    )
    assert refusal(found, Limits(agreement=0.9)) is None


def test_the_loss_where_there_is_truth() -> None:
    truth = labels([0, 0, 1, VOID])
    found = compared([Compared("x", labels([0, 0, 1, 1]), labels([0, 1, 1, 0]), truth)], CLASSES)
    assert found["labelled"] == 1
    assert found["miou_f32"] == 1
    assert found["miou_lower"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["miou_loss"] == pytest.approx(50)
    assert refusal(found, Limits()) == "loses 50.00 mIoU, 0.5 are allowed"
    assert refusal(found, Limits(miou_loss=50)) is None


def test_truth_counts_more_than_agreement() -> None:
    """Other labels than f32's are no fault where they are the right ones."""
    truth = labels([0, 0, 1, 1])
    found = compared([Compared("x", labels([0, 1, 1, 1]), truth, truth)], CLASSES)
    assert (found["agreement"], refusal(found, Limits())) == (0.75, None)
    assert found["miou_loss"] is not None
    assert found["miou_loss"] < 0


def test_truth_may_be_known_of_some_pictures() -> None:
    same = labels([0, 1])
    found = compared([Compared("x", same, same), Compared("y", same, labels([1, 1]), same)], CLASSES)
    assert (found["pictures"], found["labelled"]) == (2, 1)
    assert found["miou_loss"] == pytest.approx(75)


def test_a_report_is_refused_by_either_set() -> None:
    same = labels([0, 1])
    good, bad = (
        compared([Compared(name, same, other)], CLASSES) for name, other in (("x", same), ("y", labels([0, 0])))
    )
    told = as_report(good, bad, Limits(), source="here", computed_by="a test", judged_on="")
    assert told["refused"].startswith("held back: 50.00 % of the labels")
    assert told["held_back"]["worst_picture"] == "y"
    told = as_report(good, good, Limits(), source="here", computed_by="a test", judged_on="")
    assert told["refused"] is None
