"""The model card of a trained network, written from what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stream_seg.datasets.scoring import percent
from stream_seg.training.setup import Job
from stream_seg.zoo import BUILDERS


def card(
    job: Job, path: Path, *, figures: Mapping[str, Any], chosen: str, calibrated: int, steps: int, best: float | None
) -> str:
    """Markdown on the network at `path`. `figures` are those of each precision, on what was held for scoring."""
    recipe, builder = job.recipe, BUILDERS[job.recipe.network]
    parameters = sum(value.numel() for value in job.net.parameters()) / 1e6
    source = f"{builder.source}, {builder.year}"
    rows = {
        "task": f"the class of every pixel; {len(job.classes)} classes: {', '.join(job.classes.names)}",
        "network": f"{recipe.network} ({source}), {parameters:.2f} M parameters",
        "input": f"uint8 BGR {recipe.size[0]}x{recipe.size[1]} (height, width); in the ONNX: {job.spec}",
        "files": _files(path, calibrated),
        "data": _data(job),
        "training": f"{steps} steps of {recipe.batch} crops; the averaged weights of {chosen}",
        "begun with": str(recipe.weights or recipe.start or "new weights"),
        "licence": "to be filled in: of the weights, and of the data that they were made from",
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    written = yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    return (
        f"# Model card: {recipe.network}\n\n| | |\n|---|---|\n{table}\n## Figures\n\n{_figures(job, figures, best)}\n"
        f"## Recipe\n\n```yaml\n{written}```\n\n## Limits\n\nTo be filled in: what it was seen to do badly.\n"
    )


def _files(path: Path, calibrated: int) -> str:
    int8 = path.with_stem(f"{path.stem}_int8")
    sizes = [f"{file.stat().st_size / 1e6:.1f} MB" for file in (path, int8) if file.exists()]
    quantised = f"calibrated on {calibrated} training pictures"
    if len(sizes) == 2:
        quantised = f"`{int8.name}` ({sizes[1]}, quantised after training, {quantised})"
    else:
        quantised = f"no int8 form (quantised after training, {quantised}, it lost too much)"
    return f"`{path.name}` (float32, {sizes[0]}), {quantised}, `{path.with_suffix('.json').name}`"


def _data(job: Job) -> str:
    recipe, parts = job.recipe, [f"{len(job.pairs)} pictures of {job.recipe.split}"]
    if job.held is not None:
        parts.append(f"{len(job.held)} {_held(job)}")
    if recipe.synth:
        parts.append(f"{100 * recipe.synth:.0f} % of the crops drawn (synth://road)")
    if recipe.distil:
        parts.append(f"taught by {recipe.distil.network} ({recipe.distil.weights})")
    return "; ".join(parts)


def _held(job: Job) -> str:
    return f"of {job.recipe.val}" if job.recipe.val else f"held back of {job.recipe.split}"


def _figures(job: Job, figures: Mapping[str, Any], best: float | None) -> str:
    if job.held is None or best is None:
        return "Nothing was held for scoring: `stream-seg eval` tells how good it is.\n"
    lines = [
        f"On {len(job.held)} pictures {_held(job)}, run as the pipeline runs it, in percent. The checkpoint was chosen",
        "by its mean IoU on the same pictures, so that other pictures score lower.\n",
        f"| | {' | '.join(figures)} |",
        f"|---|{'---|' * len(figures)}",
        f"| **mean IoU** | {' | '.join(percent(one['miou']) for one in figures.values())} |",
        f"| pixel accuracy | {' | '.join(percent(one['pixel_accuracy']) for one in figures.values())} |",
    ]
    for name in job.classes.names:
        lines.append(f"| {name} | {' | '.join(percent(one['class_iou'][name]) for one in figures.values())} |")
    return "\n".join(lines) + "\n"
