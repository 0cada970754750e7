"""The model card of a trained network, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stream_seg.datasets.scoring import format_percent
from stream_seg.training.checkpoint import Run
from stream_seg.training.recipe import Recipe
from stream_seg.training.setup import Job
from stream_seg.zoo import BUILDERS


def format_model_card(
    job: Job, run: Run, path: Path, *, figures: Mapping[str, Any], checkpoint: str, calibration_images: int
) -> str:
    """Return the card of the network exported to `path`. `figures` are those of each precision on the val images."""
    recipe, entry = job.recipe, BUILDERS[job.recipe.network]
    parameters = sum(value.numel() for value in job.net.parameters()) / 1e6
    rows = {
        "task": f"semantic segmentation into {len(job.classes)} classes: {', '.join(job.classes.names)}",
        "network": f"{recipe.network} ({entry.source}, {entry.year}), {parameters:.2f} M parameters",
        "input": f"uint8 BGR {recipe.size[0]}x{recipe.size[1]} (height x width); in the ONNX: {job.spec}",
        "files": _describe_files(path, calibration_images),
        "data": _describe_data(job),
        "training": f"{run.step} steps of {recipe.batch} crops; averaged weights of {checkpoint}",
        "started from": str(recipe.weights or recipe.start or recipe.backbone or "new weights"),
        "licence": "TO BE FILLED IN: of the weights and of the training data",
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    recipe_yaml = yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    return (
        f"# Model card: {recipe.network}\n\n| | |\n|---|---|\n{table}\n"
        f"## Accuracy\n\n{_format_figures(job, figures, run.best)}\n"
        f"## Recipe\n\n```yaml\n{recipe_yaml}```\n\n## Limits\n\nTO BE FILLED IN: known failures.\n"
    )


def _describe_files(path: Path, calibration_images: int) -> str:
    int8 = path.with_stem(f"{path.stem}_int8")
    sizes = [f"{file.stat().st_size / 1e6:.1f} MB" for file in (path, int8) if file.exists()]
    quantized = f"post-training quantization, calibrated on {calibration_images} training images"
    if len(sizes) == 2:
        quantized = f"`{int8.name}` ({quantized}, {sizes[1]})"
    else:
        quantized = f"no int8 form ({quantized}, lost too much accuracy)"
    return f"`{path.name}` (float32, {sizes[0]}), {quantized}, `{path.with_suffix('.json').name}`"


def _describe_data(job: Job) -> str:
    recipe, parts = job.recipe, [f"{len(job.pairs)} images of {job.recipe.split}"]
    if job.val is not None:
        parts.append(f"{len(job.val)} {_describe_val(recipe)}")
    if recipe.synth:
        parts.append(f"{100 * recipe.synth:.0f} % of the crops synthetic (synth://road)")
    if recipe.distil:
        parts.append(f"distilled from {recipe.distil.network} ({recipe.distil.weights})")
    return "; ".join(parts)


def _describe_val(recipe: Recipe) -> str:
    return f"of {recipe.val}" if recipe.val else f"held back from {recipe.split}"


def _format_figures(job: Job, figures: Mapping[str, Any], best: float | None) -> str:
    if job.val is None or best is None:
        return "Not scored: the recipe has neither `val` nor `held_back`. `stream-seg eval` scores the network.\n"
    rows = {"**mean IoU**": [one["miou"] for one in figures.values()]}
    rows["pixel accuracy"] = [one["pixel_accuracy"] for one in figures.values()]
    rows |= {name: [one["class_iou"][name] for one in figures.values()] for name in job.classes.names}
    return (
        f"In percent, on {len(job.val)} images {_describe_val(job.recipe)}, run as the pipeline runs the network. The\n"
        "checkpoint was selected by its mean IoU on the same images, so other images score lower.\n\n"
        f"| | {' | '.join(figures)} |\n|---|{'---|' * len(figures)}\n"
    ) + "".join(f"| {name} | {' | '.join(map(format_percent, values))} |\n" for name, values in rows.items())
