"""Tests of the losses against worked examples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stream_seg.training.losses import (
    class_weights,
    distillation_loss,
    lovasz_gradient,
    lovasz_loss,
    ohem_loss,
    sample_pixels,
    weighted_loss,
)
from stream_seg.training.recipe import Ohem
from stream_seg.types import VOID


def test_labels_are_sampled_at_the_phase() -> None:
    labels, scores = torch.arange(24).reshape(1, 4, 6), torch.zeros(1, 1, 2, 3)
    assert sample_pixels(scores, labels, np.array([0.0, 0.0]))[1].tolist() == [[[0, 2, 4], [12, 14, 16]]]
    assert sample_pixels(scores, labels, np.array([0.99, 0.5]))[1].tolist() == [[[7, 9, 11], [19, 21, 23]]]
    near_one = np.array([1 - 1e-12, 1 - 1e-12])
    wide = sample_pixels(torch.zeros(1, 1, 144, 192), torch.zeros(1, 288, 384), near_one)
    assert wide[1].shape == wide[0].shape[:1] + wide[0].shape[2:] == (1, 144, 192)


@pytest.mark.parametrize("size", [(14, 18), (13, 17), (112, 54), (7, 9), (5, 6)])
def test_scores_are_interpolated_at_the_sampled_pixel(size: tuple[int, int]) -> None:
    scores = torch.randn(2, 3, 7, 9, requires_grad=True)
    enlarged = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    numbers = torch.arange(size[0] * size[1]).reshape(1, *size).expand(2, -1, -1)
    for phase in itertools.product((0.1, 0.4, 0.9), repeat=2):
        sampled, pixels = sample_pixels(scores, numbers, np.array(phase))
        expected = enlarged.flatten(2).gather(2, pixels.flatten(1)[:, None].expand(-1, 3, -1)).view_as(sampled)
        torch.testing.assert_close(sampled, expected)
    sampled.sum().backward()
    assert scores.grad is not None
    assert scores.grad.sum().item() == pytest.approx(sampled.numel(), rel=1e-4)


def test_an_outline_within_a_cell_is_learnt_exactly() -> None:
    labels = (torch.arange(8) >= 3).long().expand(1, 8, 8)
    scores, rng = torch.zeros(1, 2, 4, 4, requires_grad=True), np.random.default_rng(0)
    optimiser = torch.optim.Adam([scores], lr=0.1)
    for _ in range(100):
        weighted_loss(*sample_pixels(scores, labels, rng.random(2)), torch.ones(2)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
    enlarged = F.interpolate(scores, size=(8, 8), mode="bilinear", align_corners=False)
    assert (enlarged.argmax(1) == labels).all()


@pytest.mark.parametrize(
    "loss",
    [weighted_loss, lovasz_loss, lambda *arguments: ohem_loss(*arguments, ohem=Ohem())],
    ids=["weighted", "lovasz", "ohem"],
)
def test_void_has_no_gradient(loss: type[weighted_loss]) -> None:  # type: ignore[valid-type]
    scores = torch.randn(1, 2, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, 2:] = VOID
    loss(scores, labels, torch.ones(2)).backward()  # type: ignore[operator]
    assert scores.grad is not None
    assert scores.grad[:, :, :2].abs().sum() > 0
    assert scores.grad[:, :, 2:].abs().sum() == 0
    assert loss(scores, torch.full_like(labels, VOID), torch.ones(2)) == 0  # type: ignore[operator]


def test_rare_classes_have_larger_weights() -> None:
    weights = class_weights([np.repeat(np.uint8([0, 1, 2]), [60, 30, 10])], 3)
    assert weights[0] < weights[1] < weights[2]
    assert class_weights([np.repeat(np.uint8([0, 1, 2]), [60, 30, 10])], 3, power=0).tolist() == [1, 1, 1]
    assert class_weights([np.full(9, 255, np.uint8)], 3).tolist() == [1, 1, 1]


def test_absent_classes_do_not_change_the_other_weights() -> None:
    labels = [np.repeat(np.uint8([0, 1, 2]), [60, 30, 10])]
    assert class_weights(labels, 19)[:3].tolist() == class_weights(labels, 3).tolist()
    assert class_weights(labels, 19)[3:].tolist() == [1] * 16


def probabilities(*true: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores (1, 2, 1, n) with these probabilities of class 0, and labels of class 0."""
    p = torch.tensor(true)
    return torch.stack([p, 1 - p]).log()[None, :, None], torch.zeros(1, 1, len(true), dtype=torch.long)


def test_only_hard_pixels_count() -> None:
    scores, labels = probabilities(0.99, 0.9, 0.6, 0.2)
    weights = torch.ones(2)
    hard = ohem_loss(scores, labels, weights, ohem=Ohem(threshold=0.7, keep=0.25))
    assert hard.item() == pytest.approx(-(math.log(0.6) + math.log(0.2)) / 2)
    more = ohem_loss(scores, labels, weights, ohem=Ohem(threshold=0.1, keep=0.75))
    assert more.item() == pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(0.2)) / 3)


def two_classes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores, labels and weights of two pixels: class 0 at probability 0.8, class 1 at 0.6 with weight 3."""
    return probabilities(0.8, 0.4)[0], torch.tensor([[[0, 1]]]), torch.tensor([1.0, 3.0])


WEIGHTED_ENTROPY = -(math.log(0.8) + 3 * math.log(0.6)) / (1 + 3)


def test_half_the_dice_loss_is_added_to_the_weighted_entropy() -> None:
    overlaps = [(2 * 0.8 + 1) / ((0.8 + 0.4) + 1 + 1), (2 * 0.6 + 1) / ((0.2 + 0.6) + 1 + 1)]
    assert weighted_loss(*two_classes()).item() == pytest.approx(WEIGHTED_ENTROPY + 0.5 * (1 - np.mean(overlaps)))


def test_lovasz_is_added_to_the_weighted_entropy() -> None:
    """Both classes have the errors 0.4 and 0.2; the larger halves the IoU of class 0 and removes that of class 1."""
    lovasz = [0.4 * (1 - 1 / 2) + 0.2 * 1 / 2, 0.4 * 1 + 0.2 * 0]
    assert lovasz_loss(*two_classes()).item() == pytest.approx(WEIGHTED_ENTROPY + np.mean(lovasz))


def test_hard_pixels_have_the_weights_of_their_classes() -> None:
    hard = ohem_loss(*two_classes(), ohem=Ohem(threshold=0.9))
    assert hard.item() == pytest.approx(WEIGHTED_ENTROPY)


def test_lovasz_is_one_minus_the_mean_iou_for_certain_scores() -> None:
    truth = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 1, 1, 0, 2])
    scores = 40.0 * F.one_hot(predicted, 4).T.float()[None, :, None]  # the fourth class is absent
    iou = np.mean([2 / 5, 2 / 5, 1])
    both = lovasz_loss(scores, truth[None, None], torch.ones(4)).item()
    entropy = F.cross_entropy(scores, truth[None, None]).item()
    assert both - entropy == pytest.approx(1 - iou, abs=1e-5)


def test_the_lovasz_gradient_by_hand() -> None:
    true = torch.tensor([[0.0, 1, 0, 1], [1, 0, 1, 0]])  # by decreasing error
    assert lovasz_gradient(true)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 12, 1 / 4])
    assert lovasz_gradient(true).sum(1).tolist() == pytest.approx([1, 1])  # all wrong: no overlap is left


def test_a_large_batch_is_sampled_for_lovasz() -> None:
    scores, labels = torch.randn(1, 3, 600, 600), torch.randint(3, (1, 600, 600))
    losses = [lovasz_loss(scores, labels, torch.ones(3)).item() for _ in range(12)]
    assert max(losses) - min(losses) < 0.02
    assert len(set(losses)) > 1


def test_distillation_by_hand() -> None:
    scores = torch.randn(1, 3, 4, 4)
    everywhere = torch.ones(1, 1, 1, dtype=torch.bool)
    assert distillation_loss(scores, scores, everywhere, temperature=3.0).item() == pytest.approx(0, abs=1e-6)
    flat, certain = torch.zeros(1, 2, 1, 1), torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1)
    p = 1 / (1 + math.exp(-1))  # of the certain teacher at temperature 2
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert distillation_loss(flat, certain, everywhere, temperature=2.0).item() == pytest.approx(expected, rel=1e-4)
    finer = F.interpolate(certain, size=(8, 8))
    assert distillation_loss(flat, finer, everywhere, temperature=2.0).item() == pytest.approx(expected, rel=1e-4)
    both = torch.cat([flat, certain], dim=3)  # the right half equals the teacher's and is not valid
    left = torch.tensor([[[True, False]]])
    assert distillation_loss(both, torch.cat([certain] * 2, 3), left, temperature=2.0).item() == pytest.approx(
        expected, rel=1e-4
    )
    assert distillation_loss(both, both, left & ~left, temperature=2.0).item() == 0
