"""Measure a step of `stream-seg train` on the CPU, with freed memory kept for the next step or returned to the system.

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
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

WARM = 5


def main(
    recipe: Annotated[Path, typer.Argument(help="A training recipe; its data must be present.")],
    steps: Annotated[int, typer.Option(min=WARM + 2, help="Steps of each run.")] = 40,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each kind, alternating.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """Measure the median seconds of a step."""
    facts: dict[str, Any] = {"machine": describe_machine(), "recipe": str(recipe), "returned": [], "kept": []}
    for _ in range(runs):
        for mode in ("returned", "kept"):
            with get_context("spawn").Pool(1) as pool:  # the setting of the C library holds for its whole process
                facts[mode].append(pool.apply(measure_step_s, (recipe, steps, mode == "kept")))
    ratio = median(facts["returned"]) / median(facts["kept"])
    facts["ratio"] = round(ratio, 3)
    table = figures_table("memory", "seconds per step, by run")
    for mode in ("returned", "kept"):
        table.add_row(mode, " ".join(f"{value:.3f}" for value in facts[mode]))
    table.add_row("returned / kept, medians", f"{ratio:.2f}")
    print_results(facts, [table], json_file)


def measure_step_s(recipe_file: Path, steps: int, keep: bool) -> float:
    """Return the median time between two steps, after the first ones."""
    from stream_seg.cli.malloc import keep_freed_memory
    from stream_seg.training.loop import train
    from stream_seg.training.recipe import read_recipe
    from stream_seg.training.setup import prepare_job

    if keep:
        keep_freed_memory()
    job = prepare_job(read_recipe(recipe_file).model_copy(update={"steps": steps}), where=str(recipe_file))
    times_s: list[float] = []
    with TemporaryDirectory() as folder:
        train(job, out=Path(folder), on_step=lambda _step, _figures: times_s.append(time.perf_counter()))
    return median(later - earlier for earlier, later in zip(times_s[WARM:], times_s[WARM + 1 :], strict=False))


if __name__ == "__main__":
    run_command(main)
