"""What a step is judged by: losses of class scores (N, C, h, w) and labels (N, h, w), of which VOID teaches nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.training.recipe import Ohem
from stream_seg.types import VOID
from stream_seg.zoo.weights.normalise import InputSpec, Normalise

SORTED = 65536
"""Pixels of a batch that the Lovasz-softmax loss takes, within a factor of two."""


def class_weights(labels: Sequence[NDArray[np.uint8]], classes: int, *, power: float = 0.5) -> Tensor:
    """One over a power of each class's share, by the mean of the classes that occur, held within 0.3 and 4."""
    counts = np.sum([np.bincount(one.ravel(), minlength=256)[:classes] for one in labels], axis=0)
    occurs = counts > 0
    weights = (counts / max(1, counts.sum()) + 1e-4) ** -power
    weights = np.where(occurs, weights / weights[occurs].mean(), 1.0) if occurs.any() else np.ones(classes)
    return torch.tensor(np.clip(weights, 0.3, 4), dtype=torch.float32)


def sampled(scores: Tensor, labels: Tensor, phase: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Scores (N, C, h, w) and labels (N, H, W) of one pixel in every cell of the scores' grid, the one at `phase` (0 to
    1, down and right) of its cell: (N, C, h, w), as the bilinearly enlarged scores have them there, and (N, h, w).

    Scores have half the picture's resolution. Enlarging them to the labels' size for the loss costs as much as the
    network's forward pass; taking another pixel of each cell at every step teaches the same, outlines that run between
    two cells included, at a fifth of that.
    """
    for axis in (1, 2):
        cells, pixels = scores.shape[axis + 1], labels.shape[axis]
        at = ((torch.arange(cells) + phase[axis - 1]) * pixels / cells).long().clamp(max=pixels - 1)
        place = ((at + 0.5) * cells / pixels - 0.5).clamp(0, cells - 1)
        low = place.long()
        near, far = (
            scores.index_select(axis + 1, cell.to(scores.device)).float()
            for cell in (low, (low + 1).clamp(max=cells - 1))
        )
        weight = (place - low).float().to(scores.device)
        scores = near.lerp(far, weight[:, None] if axis == 1 else weight)
        labels = labels.index_select(axis, at.to(labels.device))
    return scores, labels


def loss_of(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy plus half the soft Dice loss over the classes present."""
    valid = labels != VOID
    if not valid.any():
        return scores.sum() * 0  # a mean of nothing is no number
    logarithm = scores.float().log_softmax(1)
    entropy = F.nll_loss(logarithm, labels, weight=weights, ignore_index=VOID)
    target = F.one_hot(labels.where(valid, 0), scores.shape[1]).permute(0, 3, 1, 2) * valid[:, None]
    probability = logarithm.exp() * valid[:, None]
    overlap, total = (probability * target).sum((0, 2, 3)), (probability + target).sum((0, 2, 3))
    present = target.sum((0, 2, 3)) > 0
    return entropy + 0.5 * (1 - (2 * overlap + 1) / (total + 1))[present].mean()


def lovasz_loss_of(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy plus the Lovasz-softmax loss, which falls as the mean IoU of the batch's classes rises.

    Berman, Rannen Triki, Blaschko, CVPR 2018, section 3.2, over the classes present. It sorts every class's errors,
    so it takes about `SORTED` pixels of the batch, evenly spread from a random first one.
    """
    valid = (labels != VOID).flatten()
    if not valid.any():
        return scores.sum() * 0
    logarithm = scores.float().log_softmax(1)
    entropy = F.nll_loss(logarithm, labels, weight=weights, ignore_index=VOID)
    stride = max(1, int(valid.sum()) // SORTED)
    first = int(torch.randint(stride, ()))
    probability = logarithm.exp().movedim(1, 0).flatten(1)[:, valid][:, first::stride]
    true = F.one_hot(labels.flatten()[valid][first::stride], scores.shape[1]).T.to(probability.dtype)
    errors, order = (true - probability).abs().sort(dim=1, descending=True)
    return entropy + (errors * lovasz_gradient(true.gather(1, order)))[true.any(1)].sum(1).mean()


def lovasz_gradient(true: Tensor) -> Tensor:
    """How much 1 - IoU of each class grows with each further error: (C, P) of 0 and 1, in the order of falling errors.

    Algorithm 1 of the paper.
    """
    wrong_truth, wrong_rest = true.cumsum(1), (1 - true).cumsum(1)
    size = true.sum(1, keepdim=True)
    loss = 1 - (size - wrong_truth) / (size + wrong_rest)
    return torch.cat([loss[:, :1], loss[:, 1:] - loss[:, :-1]], dim=1)


def hard_loss_of(scores: Tensor, labels: Tensor, weights: Tensor, *, ohem: Ohem) -> Tensor:
    """Weighted cross-entropy of the pixels whose true class is less probable than `threshold`, at least `keep` of all.

    Shrivastava et al., CVPR 2016, pixels for regions; the threshold is that of Wu et al., arXiv 1605.06885.
    """
    valid = (labels != VOID).flatten()
    if not valid.any():
        return scores.sum() * 0
    logarithm = scores.float().log_softmax(1)
    each = F.nll_loss(logarithm, labels, reduction="none", ignore_index=VOID).flatten()[valid]
    weight = weights[labels.flatten()[valid]]
    least = max(1, int(ohem.keep * len(each)))
    hardest = each.detach().topk(least).values[-1]
    hard = each.detach() >= min(float(hardest), float(-np.log(ohem.threshold)))
    return (each[hard] * weight[hard]).sum() / weight[hard].sum()


def distilled(scores: Tensor, teacher: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """How far the softened probabilities are from the teacher's (N, C, H, W), of any size, where `valid` (N, h, w).

    Kullback-Leibler divergence times the square of the temperature, as Hinton et al. (arXiv 1503.02531, section 2).
    """
    teacher = F.interpolate(teacher.float(), size=scores.shape[-2:], mode="bilinear", align_corners=False)
    ours, theirs = ((one.float() / temperature).log_softmax(1) for one in (scores, teacher))
    divergence = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)
    return (divergence * valid).sum() / valid.sum().clamp(min=1) * temperature**2


Teach = Callable[[Tensor], Tensor]
"""From images uint8 (N, H, W, 3) BGR to scores (N, C, h, w)."""


def teaching(net: nn.Module, spec: InputSpec, *, scales: Sequence[float], device: torch.device) -> Teach:
    """What `net`, which takes pictures as `spec` says, tells of images that it sees enlarged by each of `scales`."""
    net, prepare = net.to(device), Normalise(spec).to(device)

    @torch.no_grad()
    def teach(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return looks_averaged(net, prepare(images), scales)

    return teach


def looks_averaged(net: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]) -> Tensor:
    """The logarithm of the mean of the probabilities of images (N, 3, H, W) enlarged by each of `scales`; as fine as
    the scores of the first."""
    looks: list[Tensor] = []
    for scale in scales:
        size = scaled((images.shape[-2], images.shape[-1]), scale)
        scores = net(F.interpolate(images, size, mode="bilinear", align_corners=False)).float()
        if looks:
            scores = F.interpolate(scores, looks[0].shape[-2:], mode="bilinear", align_corners=False)
        looks.append(scores.softmax(1))
    return torch.stack(looks).mean(0).clamp(min=1e-8).log()


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) in pixels of a picture of `size` enlarged by `scale`."""
    return round(size[0] * scale), round(size[1] * scale)
