"""Checkpoints: OUT/last.pt, from which a run goes on exactly, and OUT/best.pt, its best weights by val mIoU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_jsonable_python
from torch import Tensor, nn

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import final_file, writing
from stream_seg.training.recipe import MAY_DIFFER, Recipe
from stream_seg.training.setup import Job
from stream_seg.zoo.weights.files import ABOUT, read_weights
from stream_seg.zoo.weights.source import about


@dataclass
class Run:
    """What changes while training. `average` is the weights to use, `step` the number of steps done, `first` of them
    before it went on."""

    net: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    first: int = 0
    best: float | None = None
    miou: float | None = None


def saved(run: Run, job: Job) -> dict[str, Any]:
    """A checkpoint: `net`, `average`, `optimiser`, `step`, the scores so far, the recipe, and what a side-car says."""
    return {
        "net": run.net.state_dict(),
        "average": run.average,
        "optimiser": run.optimiser.state_dict(),
        "step": run.step,
        "best": run.best,
        "miou": run.miou,
        "recipe": job.recipe.model_dump(mode="json"),
        ABOUT: about(job.recipe.network, job.spec, job.classes, job.recipe.size),
    }


def go_on(run: Run, job: Job, path: Path) -> None:
    """Put a run back where the checkpoint at `path` was. Raises NetworkError, and ConfigError for another recipe."""
    state = read_weights(path)
    missing = {"net", "average", "optimiser", "step"} - state.keys()
    if missing:
        raise NetworkError(f"{path}: not a checkpoint to go on from: no {', '.join(sorted(missing))} in it")
    changed = _changed(job.recipe, state.get("recipe"))
    if changed:
        raise ConfigError(
            f"{path}: was made with another {', '.join(changed)}; go on with the recipe that it was made with, or begin"
            " anew in another folder (start: takes its weights along)"
        )
    try:
        run.net.load_state_dict(state["net"])
        run.optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise NetworkError(f"{path}: a checkpoint of another network: {str(error).splitlines()[0]}") from error
    run.average = {name: value.to(run.average[name].device) for name, value in state["average"].items()}
    run.first = state["step"]
    run.step, run.best, run.miou = state["step"], state.get("best"), state.get("miou")


def _changed(recipe: Recipe, before: Mapping[str, Any] | None) -> list[str]:
    """The keys that differ, newer ones than the checkpoint from their defaults; none where no recipe stands in it."""
    now = recipe.model_dump(mode="json")
    optional = {key: field.default for key, field in Recipe.model_fields.items() if not field.is_required()}
    defaults = to_jsonable_python(optional)
    return [key for key in now if before and key not in MAY_DIFFER and before.get(key, defaults.get(key)) != now[key]]


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one. Raises OutputError."""
    with final_file(path) as partial, writing(path), partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # "unexpected pos" is all that torch says of a write that the system refused
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())
