"""Checkpoints: OUT/last.pt, from which a run resumes exactly, and OUT/best.pt, the best weights by val mIoU."""

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
from stream_seg.files.writing import atomic_file, map_write_errors
from stream_seg.training.recipe import MAY_DIFFER, Recipe
from stream_seg.training.setup import Job
from stream_seg.zoo.weights.files import ABOUT, read_weights
from stream_seg.zoo.weights.source import describe_weights


@dataclass
class Run:
    """The state of a training. `average` is the averaged weights, `step` the steps done, `first` those of it that were
    done before it resumed, `best` and `miou` the best and the latest val mIoU."""

    net: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    first: int = 0
    best: float | None = None
    miou: float | None = None


def checkpoint_state(run: Run, job: Job) -> dict[str, Any]:
    """Return the content of a checkpoint: weights, optimiser, progress, recipe, and the keys of a side-car."""
    return {
        "net": run.net.state_dict(),
        "average": run.average,
        "optimiser": run.optimiser.state_dict(),
        "step": run.step,
        "best": run.best,
        "miou": run.miou,
        "recipe": job.recipe.model_dump(mode="json"),
        ABOUT: describe_weights(job.recipe.network, job.spec, job.classes, job.recipe.size),
    }


def resume_run(run: Run, job: Job, path: Path) -> None:
    """Restore a run from a checkpoint. Raises NetworkError, and ConfigError if it was made by another recipe."""
    state = read_weights(path)
    missing = {"net", "average", "optimiser", "step"} - state.keys()
    if missing:
        raise NetworkError(f"{path}: not a checkpoint to resume from: it lacks {', '.join(sorted(missing))}")
    changed = _changed_keys(job.recipe, state.get("recipe"))
    if changed:
        raise ConfigError(
            f"{path}: the recipe has another {', '.join(changed)} now; resume with the recipe of the checkpoint, or"
            " train into another folder (start: takes these weights)"
        )
    try:
        run.net.load_state_dict(state["net"])
        run.optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise NetworkError(f"{path}: a checkpoint of another network: {str(error).splitlines()[0]}") from error
    run.average = {name: value.to(run.average[name].device) for name, value in state["average"].items()}
    run.first = state["step"]
    run.step, run.best, run.miou = state["step"], state.get("best"), state.get("miou")


def _changed_keys(recipe: Recipe, before: Mapping[str, Any] | None) -> list[str]:
    """Return the keys whose values changed; keys that the checkpoint does not know count as its defaults.

    Without a recipe in the checkpoint there are none.
    """
    now = recipe.model_dump(mode="json")
    optional = {key: field.default for key, field in Recipe.model_fields.items() if not field.is_required()}
    defaults = to_jsonable_python(optional)
    return [key for key in now if before and key not in MAY_DIFFER and before.get(key, defaults.get(key)) != now[key]]


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a kill at any moment leaves the old or the new one. Raises OutputError."""
    with atomic_file(path) as partial, map_write_errors(path), partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch reports a failed write only as "unexpected pos"
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())
