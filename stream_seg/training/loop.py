"""The training loop: crops in, an exponential average of the weights out; killed and resumed at any moment."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.dataset import VOID, Pairs
from stream_seg.training.augment import augmented
from stream_seg.training.recipe import Recipe

SAVE_EVERY, SAY_EVERY = 250, 50


def train(recipe: Recipe, net: nn.Module, pairs: Pairs, *, classes: int, out: Path, resume: bool) -> None:
    """Train `net` (its output while training: scores, or scores and auxiliary ones), and leave OUT/last.pt.

    The checkpoint holds `net`, `average` (the weights to use), `optimiser` and `step`. Batch number s depends on the
    seed and on s alone, so that a resumed run sees what an uninterrupted one would have seen.
    """
    out.mkdir(parents=True, exist_ok=True)
    weights = class_weights(pairs.labels, classes, power=recipe.balance)
    if recipe.start is not None:
        net.load_state_dict(torch.load(recipe.start, weights_only=True)["average"])
    net = net.to(memory_format=torch.channels_last).train()
    average = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.AdamW(_groups(net, recipe.weight_decay), lr=recipe.learning_rate)
    first, checkpoint = 0, out / "last.pt"
    if resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
    mean, std = torch.tensor(recipe.mean), torch.tensor(recipe.std)
    began = time.monotonic()
    for step, (images, labels) in enumerate(batches(pairs, recipe, first=first), start=first):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = net(((images.float() / 255 - mean) / std).permute(0, 3, 1, 2))
        scores, *others = outputs if isinstance(outputs, tuple) else (outputs,)
        phase = np.random.default_rng([recipe.seed, step, 1]).random(2)
        loss = loss_of(scores, sampled(labels, scores.shape[-2:], phase), weights)
        for auxiliary in others:
            loss = loss + recipe.auxiliary * loss_of(auxiliary, sampled(labels, auxiliary.shape[-2:], phase), weights)
        if not loss.isfinite():
            raise FloatingPointError(f"step {step}: the loss is {loss.item()}")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()
        follow(average, net, keep=min(recipe.ema, (step + 1) / (step + 10)))
        done = step + 1
        if done % SAY_EVERY == 0 or done == recipe.steps:
            each = (time.monotonic() - began) / (done - first)
            left = each * (recipe.steps - done) / 60
            print(f"step {done} of {recipe.steps}, loss {loss.item():.3f}, {each:.2f} s each, {left:.0f} min left")
        if done % SAVE_EVERY == 0 or done == recipe.steps:
            state = {"net": net.state_dict(), "average": average, "optimiser": optimiser.state_dict(), "step": done}
            save(checkpoint, state)


def class_weights(labels: Sequence[NDArray[np.uint8]], classes: int, *, power: float = 0.5) -> Tensor:
    """One over a power of each class's share, scaled to mean 1 and held within 0.3 and 4."""
    counts = np.sum([np.bincount(one.ravel(), minlength=256)[:classes] for one in labels], axis=0)
    weights = (counts / counts.sum() + 1e-4) ** -power
    return torch.tensor(np.clip(weights / weights.mean(), 0.3, 4), dtype=torch.float32)


def batches(pairs: Pairs, recipe: Recipe, *, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 images (N, H, W, 3) and int64 labels (N, H, W) of every step from `first` on, made in another thread."""
    ready: Queue[tuple[Tensor, Tensor]] = Queue(maxsize=4)

    def produce() -> None:
        for step in range(first, recipe.steps):
            draw = np.random.default_rng([recipe.seed, step])
            chosen = draw.integers(len(pairs), size=recipe.batch)
            crops = [
                augmented(*pairs[int(i)], draw, crop=recipe.crop, scale=recipe.scale, sky=recipe.sky) for i in chosen
            ]
            images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
            ready.put((images, labels.long()))

    Thread(target=produce, daemon=True).start()
    for _ in range(first, recipe.steps):
        yield ready.get()


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then the polynomial decay of DeepLab (power 0.9), or held and let down in the last third."""
    left = 1 - step / recipe.steps
    decay = left**0.9 if recipe.schedule == "poly" else 3 * left
    return recipe.learning_rate * min((step + 1) / recipe.warm_up, decay, 1.0)


def sampled(labels: Tensor, size: Sequence[int], phase: NDArray[np.float64]) -> Tensor:
    """Labels (N, H, W) picked at `phase` (0 to 1, down and right) of every cell of a grid of `size`.

    Scores have half the picture's resolution. Enlarging them to the labels' size for the loss costs as much as the
    network's forward pass; picking another pixel of each cell at every step teaches the same boundaries at a quarter.
    """
    rows = ((torch.arange(size[0]) + phase[0]) * labels.shape[1] / size[0]).long().clamp(max=labels.shape[1] - 1)
    columns = ((torch.arange(size[1]) + phase[1]) * labels.shape[2] / size[1]).long().clamp(max=labels.shape[2] - 1)
    return labels[:, rows[:, None], columns[None, :]]


def loss_of(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy plus half the soft Dice loss over the classes present; (N, C, h, w) and (N, h, w)."""
    logarithm = scores.float().log_softmax(1)
    entropy = F.nll_loss(logarithm, labels, weight=weights, ignore_index=VOID)
    valid = labels != VOID
    target = F.one_hot(labels.where(valid, 0), scores.shape[1]).permute(0, 3, 1, 2) * valid[:, None]
    probability = logarithm.exp() * valid[:, None]
    overlap, total = (probability * target).sum((0, 2, 3)), (probability + target).sum((0, 2, 3))
    present = target.sum((0, 2, 3)) > 0
    return entropy + 0.5 * (1 - (2 * overlap + 1) / (total + 1))[present].mean()


@torch.no_grad()
def follow(average: dict[str, Tensor], net: nn.Module, *, keep: float) -> None:
    """Move the average of the weights towards the network's."""
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)


def save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _groups(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for the convolutions, none for biases and normalisation."""
    parameters = list(net.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
