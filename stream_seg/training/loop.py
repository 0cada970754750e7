"""The training loop. It averages the weights, and a run that is killed at any moment resumes exactly."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stream_seg.datasets.labelled import Pairs
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files.writing import map_write_errors
from stream_seg.training.batches import iterate_batches
from stream_seg.training.checkpoint import Run, checkpoint_state, resume_run, save_checkpoint
from stream_seg.training.history import History, draw_samples
from stream_seg.training.losses import (
    class_weights,
    distillation_loss,
    lovasz_loss,
    make_teacher,
    ohem_loss,
    sample_pixels,
    weighted_loss,
)
from stream_seg.training.recipe import Recipe
from stream_seg.training.setup import Job
from stream_seg.types import VOID
from stream_seg.zoo.weights.input_spec import Normalise, score, torch_predictor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
MAX_LINES = 500
"""Lines of figures in the log of a run, at most."""
OnStep = Callable[[int, dict[str, Any]], None]
"""Called with the steps done and the latest figures: loss, learning_rate, miou."""


def train(
    job: Job, *, out: Path, resume: bool = False, on_step: OnStep | None = None, stop: Event | None = None
) -> Run:
    """Train `job.net`. Write OUT/last.pt, log.jsonl and curves.png, and with val images best.pt and samples.png.

    Once `stop` is set, the run ends after its step and saves last.pt. Batches depend on recipe and step number alone,
    so that a resumed run sees the same ones; on a CPU it ends in the same weights, bit for bit.

    Raises OutputError, NetworkError if the loss diverges, and ConfigError if a step does not fit into memory.
    """
    recipe, device = job.recipe, resolve_device(job.recipe)
    with map_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    net = job.net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(_parameter_groups(net, recipe.weight_decay), lr=recipe.learning_rate)
    run = Run(net, {name: value.clone() for name, value in net.state_dict().items()}, optimiser)
    if resume and (out / "last.pt").exists():
        resume_run(run, job, out / "last.pt")
    history, loss_at = History(out, step=run.step), _make_loss(job, device)
    batches = iterate_batches(job.pairs, recipe, job.classes, first=run.step)
    for step, (images, labels) in enumerate(batches, start=run.step):
        rate = learning_rate(step, recipe)
        with report_out_of_memory(recipe, device):
            loss = _optimise(run, recipe, loss_at(step, images.to(device), labels.to(device)), rate=rate)
        run.step = step + 1
        last = run.step == recipe.steps
        if run.step % -(-recipe.steps // MAX_LINES) == 0 or last:
            history.add({"step": run.step, "loss": round(loss.item(), 6), "learning_rate": rate})
        if job.val is not None and (run.step % recipe.validate_every == 0 or last):
            _validate(run, job, job.val, out=out, history=history)
        if on_step is not None:
            on_step(run.step, {"loss": loss, "learning_rate": rate, "miou": run.miou})
        stopped = stop is not None and stop.is_set()
        if run.step % recipe.save_every == 0 or last or stopped:
            save_checkpoint(out / "last.pt", checkpoint_state(run, job))
        if stopped:
            break
    history.plot()
    return run


@contextmanager
def report_out_of_memory(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Raise ConfigError if the work inside does not fit into the memory of `device`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch raises OutOfMemoryError for a GPU, but only a RuntimeError for the CPU
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not re.search("alloc.*memory", str(error)):
            raise
        crops = f"{recipe.batch} crops of {recipe.crop[0]}x{recipe.crop[1]}"
        place = "the GPU" if device.type == "cuda" else "this machine"
        message = f"batch: {crops} do not fit into the memory of {place}; use a smaller batch or crop"
        raise ConfigError(message) from error


def resolve_device(recipe: Recipe) -> torch.device:
    """Return the device to train on. Raises ConfigError if the recipe requires CUDA and there is none."""
    available = torch.cuda.is_available()
    if recipe.device == "cuda" and not available:
        raise ConfigError("device: cuda: torch has no CUDA device; use auto or cpu")
    return torch.device("cuda" if available and recipe.device != "cpu" else "cpu")


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step.

    poly: linear warm-up, then DeepLab's decay (power 0.9). hold: the same warm-up, constant, linear to 0 in the last
    third. one_cycle: along cosines from a 25th up in the first three tenths of the steps, then down to almost 0.
    """
    done = step / recipe.steps
    if recipe.schedule == "one_cycle":
        up, top = 0.3, recipe.learning_rate
        low, part = (top / 25, 1 - done / up) if done < up else (top / 25e4, (done - up) / (1 - up))
        return low + (top - low) * (1 + math.cos(math.pi * part)) / 2
    decay = (1 - done) ** 0.9 if recipe.schedule == "poly" else 3 * (1 - done)
    return recipe.learning_rate * min((step + 1) / recipe.warm_up, decay, 1.0)


def _make_loss(job: Job, device: torch.device) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Return the loss function of a step number, its images and its labels."""
    recipe, net = job.recipe, job.net
    weights = class_weights(job.pairs.labels, len(job.classes), power=recipe.balance).to(device)
    ohem: Loss = partial(ohem_loss, ohem=recipe.ohem)
    criterion: Loss = {"weighted": weighted_loss, "lovasz": lovasz_loss, "ohem": ohem}[recipe.loss]
    normalise, distil = Normalise(job.spec).to(device), recipe.distil
    teach = make_teacher(*job.teacher, scales=distil.scales, device=device) if distil and job.teacher else None

    def loss_at(step: int, images: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout, too, depends on the step alone
        with torch.autocast(device.type, torch.bfloat16):
            outputs = net(normalise(images))
        scores, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        phase = np.random.default_rng([recipe.seed, step, 1]).random(2)
        sampled, truth = sample_pixels(scores, labels, phase)
        loss = criterion(sampled, truth, weights)
        for other in auxiliary:
            loss = loss + recipe.auxiliary * criterion(*sample_pixels(other, labels, phase), weights)
        if distil and teach:
            distillation = distillation_loss(scores, teach(images), truth != VOID, temperature=distil.temperature)
            loss = (1 - distil.share) * loss + distil.share * distillation
        if not loss.isfinite():
            raise NetworkError(f"step {step}: the loss is {loss.item()}; try a lower learning_rate")
        return loss

    return loss_at


def _optimise(run: Run, recipe: Recipe, loss: Tensor, *, rate: float) -> Tensor:
    """Do one step of the optimiser and update the average. Return the detached loss."""
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.net.parameters(), 5.0)
    run.optimiser.step()
    run.optimiser.zero_grad()
    update_average(run.average, run.net, decay=min(recipe.ema, (run.step + 1) / (run.step + 10)))
    return loss.detach()


@torch.no_grad()
def update_average(average: dict[str, Tensor], net: nn.Module, *, decay: float) -> None:
    """Update the exponential average of the network's weights; counters are copied."""
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _validate(run: Run, job: Job, val: Pairs, *, out: Path, history: History) -> None:
    """Score the averaged weights on `val`, save them if they are the best, and draw samples and curves."""
    net = copy.deepcopy(run.net).eval()
    net.load_state_dict(run.average)
    predict = torch_predictor(net, job.spec, job.recipe.size)
    result = score(predict, val, job.classes)
    run.miou = result["miou"]
    history.add({"step": run.step, "miou": result["miou"], "class_iou": result["class_iou"]})
    if run.best is None or result["miou"] > run.best:
        run.best = result["miou"]
        save_checkpoint(out / "best.pt", checkpoint_state(run, job))
    draw_samples(out / "samples.png", predict, val, job.classes)
    history.plot()


def _parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Apply weight decay to convolutions, not to biases and normalisation."""
    kernels, others = ([p for p in net.parameters() if (p.ndim > 1) == kernel] for kernel in (True, False))
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
