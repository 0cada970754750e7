"""What a step of `stream-seg train` takes on the CPU, with the memory that a step frees kept for the next and without.

python benchmarks/steps.py configs/train/road_camvid.yaml
"""

from __future__ import annotations

import time
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from surroundings import command, figures, finish, machine

WARM = 5


def main(
    recipe: Annotated[Path, typer.Argument(help="Of a training; its pictures have to be there.")],
    steps: Annotated[int, typer.Option(min=WARM + 2, help="Of each run.")] = 40,
    runs: Annotated[int, typer.Option(min=1, help="Of each kind, in turn.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
) -> None:
    """Median seconds of a step."""
    facts: dict[str, Any] = {"machine": machine(), "recipe": str(recipe), "left": [], "kept": []}
    for _ in range(runs):
        for how in ("left", "kept"):
            with get_context("spawn").Pool(1) as fresh:  # what the C library is told holds for its whole process
                facts[how].append(fresh.apply(step_s, (recipe, steps, how == "kept")))
    ratio = median(facts["left"]) / median(facts["kept"])
    facts["ratio"] = round(ratio, 3)
    table = figures("memory", "s a step, by run")
    for how in ("left", "kept"):
        table.add_row(how, " ".join(f"{value:.3f}" for value in facts[how]))
    table.add_row("left / kept, medians", f"{ratio:.2f}")
    finish(facts, [table], json_file)


def step_s(recipe_file: Path, steps: int, keep: bool) -> float:
    """The median time between two steps, after the first."""
    from stream_seg.training.loop import train
    from stream_seg.training.memory import keep_freed_memory
    from stream_seg.training.recipe import read_recipe
    from stream_seg.training.setup import prepared

    if keep:
        keep_freed_memory()
    job = prepared(read_recipe(recipe_file).model_copy(update={"steps": steps}), where=str(recipe_file))
    done: list[float] = []
    with TemporaryDirectory() as folder:
        train(job, out=Path(folder), say=lambda _step, _figures: done.append(time.perf_counter()))
    return median(later - earlier for earlier, later in zip(done[WARM:], done[WARM + 1 :], strict=False))


if __name__ == "__main__":
    command(main)
