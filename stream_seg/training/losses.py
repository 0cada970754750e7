"""Losses of class scores (N, C, h, w) and labels (N, h, w), ignoring VOID; distillation from a teacher network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.training.recipe import Ohem
from stream_seg.types import VOID
from stream_seg.zoo.weights.input_spec import InputSpec, Normalise

LOVASZ_PIXELS = 65536
"""Pixels of a batch that the Lovasz-softmax loss samples, within a factor of two."""
Teacher = Callable[[Tensor], Tensor]
"""Computes scores (N, C, h, w) of images uint8 (N, H, W, 3) BGR."""


def class_weights(labels: Sequence[NDArray[np.uint8]], classes: int, *, power: float = 0.5) -> Tensor:
    """Return one over a power of each class's share, relative to the mean of the classes that occur, in 0.3 to 4."""
    counts = np.sum([np.bincount(one.ravel(), minlength=256)[:classes] for one in labels], axis=0)
    occurs = counts > 0
    weights = (counts / max(1, counts.sum()) + 1e-4) ** -power
    weights = np.where(occurs, weights / weights[occurs].mean(), 1.0) if occurs.any() else np.ones(classes)
    return torch.tensor(np.clip(weights, 0.3, 4), dtype=torch.float32)


def sample_pixels(scores: Tensor, labels: Tensor, phase: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Sample scores (N, C, h, w) and labels (N, H, W) at one pixel of every cell of the scores' grid.

    The pixel lies at `phase` (0 to 1, down and right) of its cell; scores are interpolated bilinearly there. Returns
    scores (N, C, h, w) and labels (N, h, w).

    Scores have half the image's resolution. Enlarging them to the labels' size for the loss costs as much as the
    network's forward pass; another pixel of each cell at every step teaches the same, outlines between two cells
    included, at a fifth of that cost.
    """
    for axis in (1, 2):
        cells, pixels = scores.shape[axis + 1], labels.shape[axis]
        indices = ((torch.arange(cells) + phase[axis - 1]) * pixels / cells).long().clamp(max=pixels - 1)
        position = ((indices + 0.5) * cells / pixels - 0.5).clamp(0, cells - 1)
        low = position.long()
        near, far = (
            scores.index_select(axis + 1, cell.to(scores.device)).float()
            for cell in (low, (low + 1).clamp(max=cells - 1))
        )
        weight = (position - low).float().to(scores.device)
        scores = near.lerp(far, weight[:, None] if axis == 1 else weight)
        labels = labels.index_select(axis, indices.to(labels.device))
    return scores, labels


def weighted_loss(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted cross-entropy plus half the soft Dice loss over the classes present."""
    valid = labels != VOID
    if not valid.any():
        return scores.sum() * 0  # the mean of no pixels is not a number
    logarithm = scores.float().log_softmax(1)
    entropy = F.nll_loss(logarithm, labels, weight=weights, ignore_index=VOID)
    target = F.one_hot(labels.where(valid, 0), scores.shape[1]).permute(0, 3, 1, 2) * valid[:, None]
    probability = logarithm.exp() * valid[:, None]
    overlap, total = (probability * target).sum((0, 2, 3)), (probability + target).sum((0, 2, 3))
    present = target.sum((0, 2, 3)) > 0
    return entropy + 0.5 * (1 - (2 * overlap + 1) / (total + 1))[present].mean()


def lovasz_loss(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted cross-entropy plus the Lovasz-softmax loss, a surrogate of the mean IoU.

    Berman, Rannen Triki, Blaschko, CVPR 2018, section 3.2, over the classes present. It sorts the errors of every
    class, so it samples about LOVASZ_PIXELS pixels of the batch, evenly spaced from a random first one.
    """
    valid = (labels != VOID).flatten()
    if not valid.any():
        return scores.sum() * 0
    logarithm = scores.float().log_softmax(1)
    entropy = F.nll_loss(logarithm, labels, weight=weights, ignore_index=VOID)
    stride = max(1, int(valid.sum()) // LOVASZ_PIXELS)
    first = int(torch.randint(stride, ()))
    probability = logarithm.exp().movedim(1, 0).flatten(1)[:, valid][:, first::stride]
    true = F.one_hot(labels.flatten()[valid][first::stride], scores.shape[1]).T.to(probability.dtype)
    errors, order = (true - probability).abs().sort(dim=1, descending=True)
    return entropy + (errors * lovasz_gradient(true.gather(1, order)))[true.any(1)].sum(1).mean()


def lovasz_gradient(true: Tensor) -> Tensor:
    """Return the increase of 1 - IoU with each further error: (C, P) of 0 and 1, sorted by decreasing error.

    Algorithm 1 of the paper.
    """
    wrong_truth, wrong_rest = true.cumsum(1), (1 - true).cumsum(1)
    size = true.sum(1, keepdim=True)
    loss = 1 - (size - wrong_truth) / (size + wrong_rest)
    return torch.cat([loss[:, :1], loss[:, 1:] - loss[:, :-1]], dim=1)


def ohem_loss(scores: Tensor, labels: Tensor, weights: Tensor, *, ohem: Ohem) -> Tensor:
    """Return the weighted cross-entropy of pixels whose true class is less probable than `threshold`.

    At least the share `keep` of the pixels counts. Shrivastava et al., CVPR 2016, with pixels instead of regions; the
    threshold is that of Wu et al., arXiv 1605.06885.
    """
    valid = (labels != VOID).flatten()
    if not valid.any():
        return scores.sum() * 0
    logarithm = scores.float().log_softmax(1)
    losses = F.nll_loss(logarithm, labels, reduction="none", ignore_index=VOID).flatten()[valid]
    weight = weights[labels.flatten()[valid]]
    least = max(1, int(ohem.keep * len(losses)))
    hardest = losses.detach().topk(least).values[-1]
    hard = losses.detach() >= min(float(hardest), float(-np.log(ohem.threshold)))
    return (losses[hard] * weight[hard]).sum() / weight[hard].sum()


def distillation_loss(scores: Tensor, teacher: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """Return the divergence of softened probabilities from the teacher's (N, C, H, W), where `valid` (N, h, w).

    The Kullback-Leibler divergence times the square of the temperature (Hinton et al., arXiv 1503.02531, section 2).
    The teacher's scores may have another size.
    """
    teacher = F.interpolate(teacher.float(), size=scores.shape[-2:], mode="bilinear", align_corners=False)
    student, target = ((one.float() / temperature).log_softmax(1) for one in (scores, teacher))
    divergence = F.kl_div(student, target, reduction="none", log_target=True).sum(1)
    return (divergence * valid).sum() / valid.sum().clamp(min=1) * temperature**2


def make_teacher(net: nn.Module, spec: InputSpec, *, scales: Sequence[float], device: torch.device) -> Teacher:
    """Return a function that averages the scores of `net` for images enlarged by each of `scales`."""
    net, normalise = net.to(device), Normalise(spec).to(device)

    @torch.no_grad()
    def teach(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return average_scales(net, normalise(images), scales)

    return teach


def average_scales(net: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]) -> Tensor:
    """Return the logarithm of the mean probabilities of images (N, 3, H, W) enlarged by each of `scales`.

    The result has the size of the scores of the first scale.
    """
    probabilities: list[Tensor] = []
    for scale in scales:
        size = scale_size((images.shape[-2], images.shape[-1]), scale)
        scores = net(F.interpolate(images, size, mode="bilinear", align_corners=False)).float()
        if probabilities:
            scores = F.interpolate(scores, probabilities[0].shape[-2:], mode="bilinear", align_corners=False)
        probabilities.append(scores.softmax(1))
    return torch.stack(probabilities).mean(0).clamp(min=1e-8).log()


def scale_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return `size` = (height, width) times `scale`, in whole pixels."""
    return round(size[0] * scale), round(size[1] * scale)
