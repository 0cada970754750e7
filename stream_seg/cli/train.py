"""The command `stream-seg train`: train a network by a recipe and export it."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from stream_seg.cli.console import error_console, print_error_line
from stream_seg.cli.export import network_files, refuse_sidecars, require_modules
from stream_seg.cli.malloc import keep_freed_memory
from stream_seg.cli.progress import progress
from stream_seg.config.outputs import check_files
from stream_seg.errors import OutputError
from stream_seg.files.writing import is_file, replace_file
from stream_seg.runtime.signals import StopSignals

if TYPE_CHECKING:
    from stream_seg.training.checkpoint import Run
    from stream_seg.training.recipe import Recipe
    from stream_seg.training.setup import Job

LINE_EVERY_S = 20.0
RUN_FILES = ("last.pt", "best.pt", "log.jsonl", "curves.png", "samples.png")
"""Files that a training writes into its folder while it runs."""


def train_command(
    recipe_file: Path, *, out: Path | None, data: Path | None, resume: bool, overwrite: bool = False
) -> None:
    """Train by a recipe, then write OUT/NAME.onnx, NAME_int8.onnx, NAME.json and the model card NAME.md.

    Files of another run in OUT are refused, unless `overwrite` is set. Ctrl-C or SIGTERM stops it after a step;
    OUT/last.pt is saved to resume from, and nothing is exported.
    """
    require_modules("torch", "torchvision", "onnxscript", "nncf", "matplotlib", purpose="training")
    from stream_seg.training.loop import train
    from stream_seg.training.recipe import read_recipe
    from stream_seg.training.setup import prepare_job
    from stream_seg.zoo.weights.files import read_weights

    recipe, out = read_recipe(recipe_file), out or Path("runs") / recipe_file.stem
    checkpoint = last if is_file(last := out / "last.pt", error=OutputError) else None
    if checkpoint and not (resume or overwrite):
        raise OutputError(f"{last} exists; --resume resumes from it, --overwrite starts again; or choose another --out")
    checkpoint = checkpoint if resume else None
    if checkpoint is None:
        check_files(list_outputs(out, recipe, resume=resume), overwrite=overwrite, inputs=list_inputs(recipe))
    refuse_sidecars(out / f"{recipe.network}.onnx")
    job = prepare_job(recipe, data=data, where=str(recipe_file), checkpoint=checkpoint)
    keep_freed_memory()
    stop = Event()
    with StopSignals(stop), progress(error_console(), recipe.steps, unit="steps", line_every_s=LINE_EVERY_S) as update:

        def on_step(step: int, figures: dict[str, Any]) -> None:
            update(step, format_figures(figures))

        run = train(job, out=out, resume=resume, stop=stop, on_step=on_step)
    if run.step < recipe.steps:
        print_error_line(f"stopped after step {run.step} of {recipe.steps}; --resume continues")
        return
    best = "last.pt" if job.val is None else "best.pt"
    job.net.cpu().load_state_dict(read_weights(out / best)["average"])
    _export(job, run, out, checkpoint=best, overwrite=overwrite or checkpoint is not None)


def list_outputs(out: Path, recipe: Recipe, *, resume: bool) -> list[Path]:
    """Return the files that a training writes; to `resume`, those of the run in OUT are not among them."""
    onnx = out / f"{recipe.network}.onnx"
    return [*(out / name for name in RUN_FILES if not resume), *network_files(onnx), onnx.with_suffix(".md")]


def list_inputs(recipe: Recipe) -> list[str | Path]:
    """Return the weights that a training starts from or learns from."""
    teacher = recipe.distil.weights if recipe.distil else None
    return [source for source in (recipe.start, recipe.weights, recipe.backbone, teacher) if source is not None]


def _export(job: Job, run: Run, out: Path, *, checkpoint: str, overwrite: bool) -> None:
    """Export the network, score it as the pipeline runs it, and write its model card.

    A card that exists is kept, because the user may have filled it in, unless the run did further steps.
    """
    from stream_seg.engines.open import open_engine
    from stream_seg.evaluation.images import score_images
    from stream_seg.network.network import open_network
    from stream_seg.training.export import NetworkInfo, calibration_set, export_network
    from stream_seg.training.model_card import format_model_card

    recipe, path = job.recipe, out / f"{job.recipe.network}.onnx"
    source = f"{recipe.split}, compared on {recipe.val or recipe.split}"
    images = calibration_set(job.pairs, recipe.size, held_back=job.val, source=source)
    info = NetworkInfo(recipe.network, recipe.size, job.spec, job.classes)
    written, figures = export_network(job.net, path, info, images=images, overwrite=overwrite), {}
    if job.val is not None:
        for precision in ("f32", "int8") if len(written) == 3 else ("f32",):
            with open_engine(open_network(path), precision=precision) as engine:
                figures[precision] = score_images(engine, zip(job.val.images, job.val.labels, strict=True))
    card_path, count = path.with_suffix(".md"), len(images.fit)
    if run.step > run.first or not card_path.exists():
        text = format_model_card(job, run, path, figures=figures, checkpoint=checkpoint, calibration_images=count)
        replace_file(card_path, text.encode(), overwrite=overwrite)
    print("\n".join(str(file) for file in (*written, card_path)))


def format_figures(figures: dict[str, Any]) -> str:
    """Format the figures of a step as one short line."""
    miou = "" if figures["miou"] is None else f", mIoU {100 * figures['miou']:.1f}"
    return f"loss {float(figures['loss']):.3f}, rate {figures['learning_rate']:.2g}{miou}"
