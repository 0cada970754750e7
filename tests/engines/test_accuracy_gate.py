"""The accuracy gate: comparisons that can be checked by hand, and the limits."""

from __future__ import annotations

import numpy as np
import pytest

from stream_seg.backends.engine import Engine, EngineSpec, Result
from stream_seg.engines.accuracy_gate import LabelPair, Limits, compare_labels, explain_refusal, measure_accuracy
from stream_seg.engines.calibration import CalibrationSet, Sample
from stream_seg.frame import EngineInfo
from stream_seg.types import VOID, Classes, Labels

CLASSES = Classes(("a", "b"), ((0, 0, 0), (255, 255, 255)))


def labels(*rows: list[int]) -> Labels:
    return np.array(rows, np.uint8)


def test_equal_labels() -> None:
    same = labels([0, 0, 1, 1])
    result = compare_labels([LabelPair("x", same, same), LabelPair("y", same, same)], CLASSES)
    assert (result["images"], result["agreement"], result["worst"], result["miou"]) == (2, 1, 1, 1)
    assert (result["labelled"], result["miou_f32"], result["miou_lower"], result["miou_loss"]) == (0, None, None, None)
    assert explain_refusal(result, Limits()) is None


def test_agreement_and_the_worst_image() -> None:
    f32 = labels([0, 0, 1, 1])
    pairs = [LabelPair("good", f32, f32), LabelPair("bad", f32, labels([0, 0, 1, 0])), LabelPair("fine", f32, f32)]
    result = compare_labels(pairs, CLASSES)
    assert result["agreement"] == pytest.approx(11 / 12)
    assert (result["worst"], result["worst_image"]) == (0.75, "bad")
    assert result["miou"] == pytest.approx((6 / 7 + 5 / 6) / 2)
    assert explain_refusal(result, Limits()) == (
        "91.67 % of the labels equal f32, at least 99 % required (worst image bad: 75.00 %)"
    )
    assert explain_refusal(result, Limits(agreement=0.9)) is None


def test_the_loss_is_measured_on_labelled_images() -> None:
    truth = labels([0, 0, 1, VOID])
    result = compare_labels([LabelPair("x", labels([0, 0, 1, 1]), labels([0, 1, 1, 0]), truth)], CLASSES)
    assert result["labelled"] == 1
    assert result["miou_f32"] == 1
    assert result["miou_lower"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert result["miou_loss"] == pytest.approx(50)
    assert explain_refusal(result, Limits()) == "loses 50.00 mIoU, at most 0.5 allowed"
    assert explain_refusal(result, Limits(miou_loss=50)) is None


def test_truth_counts_more_than_agreement() -> None:
    """Labels that differ from f32 are accepted where they are the right ones."""
    truth = labels([0, 0, 1, 1])
    result = compare_labels([LabelPair("x", labels([0, 1, 1, 1]), truth, truth)], CLASSES)
    assert (result["agreement"], explain_refusal(result, Limits())) == (0.75, None)
    assert result["miou_loss"] is not None
    assert result["miou_loss"] < 0


def test_only_some_images_may_have_a_truth() -> None:
    same = labels([0, 1])
    pairs = [LabelPair("x", same, same), LabelPair("y", same, labels([1, 1]), same)]
    result = compare_labels(pairs, CLASSES)
    assert (result["images"], result["labelled"]) == (2, 1)
    assert result["miou_loss"] == pytest.approx(75)


def test_either_set_may_be_refused() -> None:
    spec = EngineSpec((1, 2), CLASSES, EngineInfo("mine", "fake", "f32", "a test"))
    f32, lower = (Engine(spec, lambda images, c=c: Result(labels=images[..., c])) for c in (0, 1))
    good = Sample("x", np.array([[[0, 0, 0], [1, 1, 0]]], np.uint8))
    bad = Sample("y", np.array([[[0, 0, 0], [1, 0, 0]]], np.uint8))
    report = measure_accuracy(f32, lower, CalibrationSet("here", (good,), (bad,)), limits=Limits())
    assert report["refused"] is not None
    assert report["refused"].startswith("held back: 50.00 % of the labels")
    assert report["held_back"]["worst_image"] == "y"
    assert report["computed_by"] == "fake on a test"
    report = measure_accuracy(f32, lower, CalibrationSet("here", (good,), (good,)), limits=Limits())
    assert report["refused"] is None


def test_pixels_without_a_score_are_no_class() -> None:
    """Half precision overflows where float32 does not."""
    spec = EngineSpec((1, 2), CLASSES, EngineInfo("mine", "fake", "fp16", "a test"))
    scores = np.array([[[[1, 1]], [[0, 0]]]], np.float32)
    broken = scores.copy()
    broken[0, 0, 0, 1] = np.nan
    f32, lower = (Engine(spec, lambda _, result=r: Result(scores=result)) for r in (scores, broken))
    images = (Sample("x", np.zeros((1, 2, 3), np.uint8)),)
    report = measure_accuracy(f32, lower, CalibrationSet("here", images, images), limits=Limits())
    assert report["calibration"]["agreement"] == 0.5
