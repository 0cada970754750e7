"""The training loop: crops in, an exponential average of the weights out; killed and resumed at any moment."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import writing
from stream_seg.training.batches import batches
from stream_seg.training.checkpoint import Run, go_on, save, saved
from stream_seg.training.history import History
from stream_seg.training.losses import (
    class_weights,
    distilled,
    hard_loss_of,
    loss_of,
    lovasz_loss_of,
    sampled,
    teaching,
)
from stream_seg.training.memory import within_memory
from stream_seg.training.recipe import Recipe
from stream_seg.training.setup import Job
from stream_seg.training.validation import by_torch, draw_samples, scored
from stream_seg.types import VOID
from stream_seg.zoo.weights.normalise import Normalise

LINES = 500
"""How many lines of figures a run leaves, at most."""
Say = Callable[[int, dict[str, Any]], None]
"""Called with the steps done and the latest figures: loss, learning_rate, miou."""


def train(
    job: Job,
    *,
    out: Path,
    resume: bool = False,
    say: Say = lambda _step, _figures: None,
    asked: Event | None = None,
) -> Run:
    """Train `job.net`, and leave OUT/last.pt, best.pt (where it is scored), log.jsonl, curves.png and samples.png.

    Once `asked` is set it stops after the step, with last.pt as of then.

    Batch number s depends on the recipe and on s alone, so that a resumed run sees what an uninterrupted one would have
    seen: on a CPU it ends in the same weights, bit for bit. Raises OutputError, NetworkError where it diverges, and
    ConfigError where a step does not fit into the memory.
    """
    recipe, device = job.recipe, device_of(job.recipe)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    net = job.net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(_groups(net, recipe.weight_decay), lr=recipe.learning_rate)
    run = Run(net, {name: value.clone() for name, value in net.state_dict().items()}, optimiser)
    if resume and (out / "last.pt").exists():
        go_on(run, job, out / "last.pt")
    history, loss_at = History(out, step=run.step), _criterion(job, device)
    for step, (images, labels) in enumerate(batches(job.pairs, recipe, job.classes, first=run.step), start=run.step):
        rate = learning_rate(step, recipe)
        with within_memory(recipe, device):
            loss = _step(run, recipe, loss_at(step, images.to(device), labels.to(device)), rate=rate)
        run.step = step + 1
        last = run.step == recipe.steps
        if run.step % -(-recipe.steps // LINES) == 0 or last:
            history.add({"step": run.step, "loss": round(loss.item(), 6), "learning_rate": rate})
        if job.held is not None and (run.step % recipe.validate_every == 0 or last):
            _validate(run, job, out=out, history=history)
        say(run.step, {"loss": loss, "learning_rate": rate, "miou": run.miou})
        stopped = asked is not None and asked.is_set()
        if run.step % recipe.save_every == 0 or last or stopped:
            save(out / "last.pt", saved(run, job))
        if stopped:
            break
    history.draw()
    return run


def device_of(recipe: Recipe) -> torch.device:
    """Where to train. Raises ConfigError for CUDA where there is none."""
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda: torch finds none on this machine; auto takes what is there")
    cuda = recipe.device == "cuda" or (recipe.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")


def learning_rate(step: int, recipe: Recipe) -> float:
    """The rate of a step, by the recipe's schedule.

    poly: linear warm-up, then the decay of DeepLab (power 0.9). hold: the same warm-up, held, and let down in the last
    third. one_cycle: from a 25th up for three tenths of the steps and down to nearly nothing, along cosines.
    """
    done = step / recipe.steps
    if recipe.schedule == "one_cycle":
        up, top = 0.3, recipe.learning_rate
        low, part = (top / 25, 1 - done / up) if done < up else (top / 25e4, (done - up) / (1 - up))
        return low + (top - low) * (1 + math.cos(math.pi * part)) / 2
    decay = (1 - done) ** 0.9 if recipe.schedule == "poly" else 3 * (1 - done)
    return recipe.learning_rate * min((step + 1) / recipe.warm_up, decay, 1.0)


def _criterion(job: Job, device: torch.device) -> Callable[[int, Tensor, Tensor], Tensor]:
    """The loss of a step, from its number, images and labels."""
    recipe, net = job.recipe, job.net
    weights = class_weights(job.pairs.labels, len(job.classes), power=recipe.balance).to(device)
    judges: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "weighted": loss_of,
        "lovasz": lovasz_loss_of,
        "ohem": partial(hard_loss_of, ohem=recipe.ohem),
    }
    judge = judges[recipe.loss]
    prepare = Normalise(job.spec).to(device)
    teach = None
    if recipe.distil and job.teacher:
        teach = teaching(*job.teacher, scales=recipe.distil.scales, device=device)

    def loss_at(step: int, images: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout, too, depends on the step alone
        with torch.autocast(device.type, torch.bfloat16):
            outputs = net(prepare(images))
        scores, *others = outputs if isinstance(outputs, tuple) else (outputs,)
        phase = np.random.default_rng([recipe.seed, step, 1]).random(2)
        seen, truth = sampled(scores, labels, phase)
        loss = judge(seen, truth, weights)
        for other in others:
            loss = loss + recipe.auxiliary * judge(*sampled(other, labels, phase), weights)
        if recipe.distil and teach:
            far = distilled(scores, teach(images), truth != VOID, temperature=recipe.distil.temperature)
            loss = (1 - recipe.distil.share) * loss + recipe.distil.share * far
        if not loss.isfinite():
            raise NetworkError(f"step {step}: the loss is {loss.item()}; a lower learning_rate may help")
        return loss

    return loss_at


def _step(run: Run, recipe: Recipe, loss: Tensor, *, rate: float) -> Tensor:
    """One step of the optimiser down `loss`, which is returned; the average follows."""
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.net.parameters(), 5.0)
    run.optimiser.step()
    run.optimiser.zero_grad()
    follow(run.average, run.net, keep=min(recipe.ema, (run.step + 1) / (run.step + 10)))
    return loss.detach()


@torch.no_grad()
def follow(average: dict[str, Tensor], net: nn.Module, *, keep: float) -> None:
    """Move the average of the weights towards the network's."""
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)


def _validate(run: Run, job: Job, *, out: Path, history: History) -> None:
    """Score the averaged weights, keep them as best.pt if they are, and draw samples and curves."""
    assert job.held is not None, "there is something to score on"
    net = copy.deepcopy(run.net).eval()
    net.load_state_dict(run.average)
    predict = by_torch(net, job.spec, job.recipe.size)
    found = scored(predict, job.held, job.classes)
    run.miou = found["miou"]
    history.add({"step": run.step, "miou": found["miou"], "class_iou": found["class_iou"]})
    if run.best is None or found["miou"] > run.best:
        run.best = found["miou"]
        save(out / "best.pt", saved(run, job))
    draw_samples(out / "samples.png", predict, job.held, job.classes)
    history.draw()


def _groups(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for the convolutions, none for biases and normalisation."""
    parameters = list(net.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
