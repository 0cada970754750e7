"""The losses against worked examples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stream_seg.training.losses import (
    class_weights,
    distilled,
    hard_loss_of,
    loss_of,
    lovasz_gradient,
    lovasz_loss_of,
    sampled,
)
from stream_seg.training.recipe import Ohem
from stream_seg.types import VOID


def test_labels_are_picked_at_the_phase() -> None:
    labels, scores = torch.arange(24).reshape(1, 4, 6), torch.zeros(1, 1, 2, 3)
    assert sampled(scores, labels, np.array([0.0, 0.0]))[1].tolist() == [[[0, 2, 4], [12, 14, 16]]]
    assert sampled(scores, labels, np.array([0.99, 0.5]))[1].tolist() == [[[7, 9, 11], [19, 21, 23]]]
    near_one = np.array([1 - 1e-12, 1 - 1e-12])
    wide = sampled(torch.zeros(1, 1, 144, 192), torch.zeros(1, 288, 384), near_one)
    assert wide[1].shape == wide[0].shape[:1] + wide[0].shape[2:] == (1, 144, 192)


@pytest.mark.parametrize("size", [(14, 18), (13, 17), (112, 54), (7, 9), (5, 6)])
def test_scores_are_those_of_the_picked_pixel(size: tuple[int, int]) -> None:
    scores = torch.randn(2, 3, 7, 9, requires_grad=True)
    enlarged = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    numbers = torch.arange(size[0] * size[1]).reshape(1, *size).expand(2, -1, -1)
    for phase in itertools.product((0.1, 0.4, 0.9), repeat=2):
        there, at = sampled(scores, numbers, np.array(phase))
        torch.testing.assert_close(
            there, enlarged.flatten(2).gather(2, at.flatten(1)[:, None].expand(-1, 3, -1)).view_as(there)
        )
    there.sum().backward()
    assert scores.grad is not None
    assert scores.grad.sum().item() == pytest.approx(there.numel(), rel=1e-4)


def test_an_outline_within_a_cell_is_learnt_to_the_pixel() -> None:
    labels = (torch.arange(8) >= 3).long().expand(1, 8, 8)
    scores, draw = torch.zeros(1, 2, 4, 4, requires_grad=True), np.random.default_rng(0)
    optimiser = torch.optim.Adam([scores], lr=0.1)
    for _ in range(100):
        loss_of(*sampled(scores, labels, draw.random(2)), torch.ones(2)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
    enlarged = F.interpolate(scores, size=(8, 8), mode="bilinear", align_corners=False)
    assert (enlarged.argmax(1) == labels).all()


@pytest.mark.parametrize(
    "loss",
    [loss_of, lovasz_loss_of, lambda *given: hard_loss_of(*given, ohem=Ohem())],
    ids=["weighted", "lovasz", "ohem"],
)
def test_void_teaches_nothing(loss: type[loss_of]) -> None:  # type: ignore[valid-type]
    scores = torch.randn(1, 2, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, 2:] = VOID
    loss(scores, labels, torch.ones(2)).backward()  # type: ignore[operator]
    assert scores.grad is not None
    assert scores.grad[:, :, :2].abs().sum() > 0
    assert scores.grad[:, :, 2:].abs().sum() == 0
    assert loss(scores, torch.full_like(labels, VOID), torch.ones(2)) == 0  # type: ignore[operator]


def test_rare_classes_weigh_more() -> None:
    weights = class_weights([np.repeat(np.uint8([0, 1, 2]), [60, 30, 10])], 3)
    assert weights[0] < weights[1] < weights[2]
    assert class_weights([np.repeat(np.uint8([0, 1, 2]), [60, 30, 10])], 3, power=0).tolist() == [1, 1, 1]
    assert class_weights([np.full(9, 255, np.uint8)], 3).tolist() == [1, 1, 1]


def test_classes_that_do_not_occur_leave_the_others_as_they_are() -> None:
    labels = [np.repeat(np.uint8([0, 1, 2]), [60, 30, 10])]
    assert class_weights(labels, 19)[:3].tolist() == class_weights(labels, 3).tolist()
    assert class_weights(labels, 19)[3:].tolist() == [1] * 16


def probabilities(*true: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (1, 2, 1, n) that give class 0, the true one, these probabilities."""
    p = torch.tensor(true)
    return torch.stack([p, 1 - p]).log()[None, :, None], torch.zeros(1, 1, len(true), dtype=torch.long)


def test_only_hard_pixels_teach() -> None:
    scores, labels = probabilities(0.99, 0.9, 0.6, 0.2)
    weights = torch.ones(2)
    hard = hard_loss_of(scores, labels, weights, ohem=Ohem(threshold=0.7, keep=0.25))
    assert hard.item() == pytest.approx(-(math.log(0.6) + math.log(0.2)) / 2)
    more = hard_loss_of(scores, labels, weights, ohem=Ohem(threshold=0.1, keep=0.75))
    assert more.item() == pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(0.2)) / 3)


def two_classes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, labels and weights of a pixel of class 0, 0.8 sure, and one of class 1, 0.6 sure, that weighs 3."""
    return probabilities(0.8, 0.4)[0], torch.tensor([[[0, 1]]]), torch.tensor([1.0, 3.0])


WEIGHTED_ENTROPY = -(math.log(0.8) + 3 * math.log(0.6)) / (1 + 3)


def test_half_of_dice_is_added_to_the_weighted_entropy() -> None:
    overlaps = [(2 * 0.8 + 1) / ((0.8 + 0.4) + 1 + 1), (2 * 0.6 + 1) / ((0.2 + 0.6) + 1 + 1)]
    assert loss_of(*two_classes()).item() == pytest.approx(WEIGHTED_ENTROPY + 0.5 * (1 - np.mean(overlaps)))


def test_lovasz_is_added_to_the_weighted_entropy() -> None:
    """Both classes have the errors 0.4 and 0.2; the larger halves the IoU of class 0 and takes all of class 1's."""
    lovasz = [0.4 * (1 - 1 / 2) + 0.2 * 1 / 2, 0.4 * 1 + 0.2 * 0]
    assert lovasz_loss_of(*two_classes()).item() == pytest.approx(WEIGHTED_ENTROPY + np.mean(lovasz))


def test_hard_pixels_weigh_what_their_classes_do() -> None:
    hard = hard_loss_of(*two_classes(), ohem=Ohem(threshold=0.9))
    assert hard.item() == pytest.approx(WEIGHTED_ENTROPY)


def test_lovasz_is_one_less_the_mean_iou_where_scores_are_sure() -> None:
    truth = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    said = torch.tensor([0, 0, 1, 1, 1, 1, 0, 2])
    scores = 40.0 * F.one_hot(said, 4).T.float()[None, :, None]  # a fourth class that the batch does not have
    iou = np.mean([2 / 5, 2 / 5, 1])
    both = lovasz_loss_of(scores, truth[None, None], torch.ones(4)).item()
    entropy = F.cross_entropy(scores, truth[None, None]).item()
    assert both - entropy == pytest.approx(1 - iou, abs=1e-5)


def test_the_gradient_of_lovasz_is_that_of_its_algorithm() -> None:
    true = torch.tensor([[0.0, 1, 0, 1], [1, 0, 1, 0]])  # by falling errors
    assert lovasz_gradient(true)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 12, 1 / 4])
    assert lovasz_gradient(true).sum(1).tolist() == pytest.approx([1, 1])  # all wrong: no overlap


def test_a_large_batch_is_sampled_for_lovasz() -> None:
    scores, labels = torch.randn(1, 3, 600, 600), torch.randint(3, (1, 600, 600))
    said = [lovasz_loss_of(scores, labels, torch.ones(3)).item() for _ in range(12)]
    assert max(said) - min(said) < 0.02
    assert len(set(said)) > 1


def test_a_pupil_that_says_what_the_teacher_says_has_nothing_to_learn() -> None:
    scores = torch.randn(1, 3, 4, 4)
    everywhere = torch.ones(1, 1, 1, dtype=torch.bool)
    assert distilled(scores, scores, everywhere, temperature=3.0).item() == pytest.approx(0, abs=1e-6)
    flat, sure = torch.zeros(1, 2, 1, 1), torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1)
    p = 1 / (1 + math.exp(-1))  # of the sure teacher at temperature 2
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert distilled(flat, sure, everywhere, temperature=2.0).item() == pytest.approx(expected, rel=1e-4)
    finer = F.interpolate(sure, size=(8, 8))
    assert distilled(flat, finer, everywhere, temperature=2.0).item() == pytest.approx(expected, rel=1e-4)
    beside = torch.cat([flat, sure], dim=3)  # the right half says what the teacher does; only the left one is a picture
    left = torch.tensor([[[True, False]]])
    assert distilled(beside, torch.cat([sure] * 2, 3), left, temperature=2.0).item() == pytest.approx(
        expected, rel=1e-4
    )
    assert distilled(beside, beside, left & ~left, temperature=2.0).item() == 0
