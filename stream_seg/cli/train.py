"""What `stream-seg train` does, from a recipe and a folder of pictures to files that the pipeline runs."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from rich.console import Console

from stream_seg.errors import OutputError
from stream_seg.files import is_file, replace_file
from stream_seg.runtime.signals import heard
from stream_seg.training.preflight import refuse_sidecars, require

if TYPE_CHECKING:
    from stream_seg.training.setup import Job


LINE_EVERY_S = 20.0


def train_command(recipe_file: Path, *, out: Path | None, data: Path | None, resume: bool) -> None:
    """Train by a recipe, then export: OUT/NAME.onnx, NAME_int8.onnx, NAME.json and the model card NAME.md.

    Ctrl-C or SIGTERM stops it after a step, with OUT/last.pt to go on from and nothing exported.
    """
    require("torch", "torchvision", "onnxscript", "nncf", "matplotlib", "to train")
    from stream_seg.cli.progress import progress
    from stream_seg.training.loop import train
    from stream_seg.training.memory import keep_freed_memory
    from stream_seg.training.recipe import read_recipe
    from stream_seg.training.setup import prepared
    from stream_seg.zoo.weights.files import read_weights

    recipe, out = read_recipe(recipe_file), out or Path("runs") / recipe_file.stem
    resumed = last if is_file(last := out / "last.pt", error=OutputError) else None
    if resumed and not resume:
        raise OutputError(f"{last} is there: --resume goes on from it, --out takes another folder")
    refuse_sidecars(out / f"{recipe.network}.onnx")
    job, console = prepared(recipe, data=data, where=str(recipe_file), resumed=resumed), Console(stderr=True)
    keep_freed_memory()
    asked = Event()
    with (
        heard(asked),
        progress(console, recipe.steps, unit="steps", line_every_s=LINE_EVERY_S) as update,
    ):
        run = train(job, out=out, resume=resume, say=lambda done, found: update(done, as_text(found)), asked=asked)
    if run.step < recipe.steps:
        console.print(f"stopped after step {run.step} of {recipe.steps}; --resume goes on", highlight=False)
        return
    chosen = "last.pt" if job.held is None else "best.pt"
    net = job.net.cpu()
    net.load_state_dict(read_weights(out / chosen)["average"])
    _finish(job, out, chosen=chosen, said={"steps": run.step, "best": run.best}, news=run.step > run.first)


def _finish(job: Job, out: Path, *, chosen: str, said: dict[str, Any], news: bool) -> None:
    """Export what was trained, score it as the pipeline runs it, and write its card, unless it is there and nothing
    is new: the user may have filled it in."""
    from stream_seg.training.calibration import calibration
    from stream_seg.training.export import Meaning, export
    from stream_seg.training.model_card import card
    from stream_seg.training.validation import engine_figures

    recipe, path = job.recipe, out / f"{job.recipe.network}.onnx"
    meaning = Meaning(recipe.network, recipe.size, job.spec, job.classes)
    frames = calibration(
        job.pairs, recipe.size, held=job.held, shown=f"{recipe.split}, judged on {recipe.val or recipe.split}"
    )
    written = export(job.net, path, meaning, frames=frames)
    found, precisions = {}, ("f32", "int8") if len(written) == 3 else ("f32",)
    if job.held is not None:
        found = {name: engine_figures(path, job.held, precision=name) for name in precisions}
    beside = path.with_suffix(".md")
    if news or not beside.exists():
        text = card(job, path, figures=found, chosen=chosen, calibrated=len(frames.fit), **said)
        replace_file(beside, text.encode())
    print("\n".join(str(file) for file in (*written, beside)))


def as_text(figures: dict[str, Any]) -> str:
    """Format the figures of a step as one short line."""
    miou = "" if figures["miou"] is None else f", mIoU {100 * figures['miou']:.1f}"
    return f"loss {float(figures['loss']):.3f}, rate {figures['learning_rate']:.2g}{miou}"
