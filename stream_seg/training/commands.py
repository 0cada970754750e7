"""What `stream-seg train` and `stream-seg export` do, from a file of the user's to files that the pipeline runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from stream_seg.dataset import Pairs, pair_paths, read_pair, read_pairs
from stream_seg.errors import ConfigError, OutputError
from stream_seg.output import refuse_unwritable

if TYPE_CHECKING:
    from stream_seg.classes import Classes
    from stream_seg.training.job import Job
    from stream_seg.zoo.weights.source import Weights


def train_command(recipe_file: Path, *, out: Path | None, data: Path | None, resume: bool) -> None:
    """Train by a recipe, then export: OUT/NAME.onnx, NAME_int8.onnx, NAME.json and the model card NAME.md."""
    _require("torch", "torchvision", "onnxscript", "nncf", "matplotlib", "to train")
    from stream_seg.training.display import display
    from stream_seg.training.job import prepared
    from stream_seg.training.loop import train
    from stream_seg.training.recipe import read_recipe
    from stream_seg.zoo.weights.files import read_weights

    recipe, out = read_recipe(recipe_file), out or Path("runs") / recipe_file.stem
    if (out / "last.pt").exists() and not resume:
        raise OutputError(f"{out / 'last.pt'} is there: --resume goes on from it, --out takes another folder")
    resumed = out / "last.pt" if (out / "last.pt").is_file() else None
    job, console = prepared(recipe, data=data, where=str(recipe_file), resumed=resumed), Console(stderr=True)
    with display(console, recipe.steps) as say:
        run = train(job, out=out, resume=resume, say=say)
    chosen = "last.pt" if job.held is None else "best.pt"
    net = job.net.cpu()
    net.load_state_dict(read_weights(out / chosen)["average"])
    _finish(job, out, chosen=chosen, said={"steps": run.step, "best": run.best})


def _finish(job: Job, out: Path, *, chosen: str, said: dict[str, Any]) -> None:
    """Export what was trained, score it as the pipeline runs it, and write its card."""
    from stream_seg.training.calibration import calibration
    from stream_seg.training.card import card
    from stream_seg.training.export import Meaning, export
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
    text = card(job, path, figures=found, chosen=chosen, calibrated=len(frames.fit), **said)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print("\n".join(str(file) for file in (*written, path.with_suffix(".md"))))


@dataclass(frozen=True)
class Wanted:
    """The options of `stream-seg export`, as typed; of several `weights` the mean is taken. `data` is a folder to
    calibrate int8 and check the input on; `held` the split of it on which the accuracy gate judges int8, absent:
    pictures of `split` that it was not calibrated on.
    """

    network: str
    weights: tuple[str, ...]
    out: Path
    classes: str | None = None
    picture: str | None = None
    size: str | None = None
    data: Path | None = None
    split: str = "train"
    check: bool = True
    held: str | None = None


def export_command(wanted: Wanted) -> None:
    """Make an engine of the pipeline from weights: FILE.onnx and FILE.json, with data FILE_int8.onnx too."""
    _require("torch", "torchvision", "onnxscript", *(["nncf"] if wanted.data else []), "to export")
    from stream_seg.training.calibration import calibration
    from stream_seg.training.export import Meaning, export
    from stream_seg.training.job import agreed, built, refuse_network
    from stream_seg.zoo.weights.check import INPUTS, refuse_misfit, refuse_worse
    from stream_seg.zoo.weights.fit import fit
    from stream_seg.zoo.weights.source import averaged, open_weights

    refuse_network(wanted.network, where="export")
    if wanted.picture not in (None, *INPUTS):
        raise ConfigError(f"--input: unknown {wanted.picture!r}; known: {', '.join(INPUTS)}, or a side-car")
    if wanted.out.suffix.lower() != ".onnx":
        raise ConfigError(f"--out: {wanted.out} does not end in .onnx")
    refuse_unwritable(wanted.out)
    for other in (wanted.out.with_suffix(suffix) for suffix in (".yaml", ".yml")):
        if other.exists():
            raise OutputError(f"{other} would be taken for the side-car of {wanted.out.name}; give --out another name")
    if wanted.held is not None and wanted.data is None:
        raise ConfigError("--held: is a split of --data, which is missing")
    weights = averaged([open_weights(one, network=wanted.network) for one in wanted.weights])
    spec = agreed(weights.spec, INPUTS.get(wanted.picture or ""), source=weights.source, where="--input")
    classes, size = _classes(wanted.classes, weights), _size(wanted.size, weights)
    net = built(wanted.network, len(classes)).eval()
    fit(net, weights.state, classes=len(classes), where=weights.source)
    pairs = None if wanted.data is None else _pairs(wanted.data, wanted.split, classes=len(classes))
    if wanted.check:
        images = [] if pairs is None else pairs.images
        where = f"{weights.source} (--no-check exports it all the same)"
        refuse_misfit(net, spec, images, where=where)
        if pairs is not None:
            refuse_worse(net, spec, pairs, classes, where=where)
    frames = None
    if pairs is not None and wanted.data is not None:
        held = None if wanted.held is None else read_pairs(wanted.data, wanted.held, classes=len(classes))
        frames = calibration(pairs, size, shown=f"{wanted.split}, judged on {wanted.held or wanted.split}", held=held)
    written = export(net, wanted.out, Meaning(wanted.out.stem, size, spec, classes), frames=frames)
    print("\n".join(str(file) for file in written))


def _classes(said: str | None, weights: Weights) -> Classes:
    """What the labels mean: as said (a data set, names with commas, or a number), or as the weights' papers say."""
    from stream_seg.ops.palette import PALETTES
    from stream_seg.sidecar import coloured

    if said is None:
        if weights.classes is None:
            raise ConfigError(f"--classes: is required, {weights.source} does not say: a number, names, or camvid")
        return weights.classes
    if said in PALETTES:
        return PALETTES[said]
    names = [f"class{i}" for i in range(int(said))] if re.fullmatch(r"\d{1,3}", said) else said.split(",")
    if not 1 <= len(set(names)) == len(names) <= 255:
        raise ConfigError(f"--classes: {said!r}: 1 to 255 names, each once, or their number")
    return coloured(names, None, where="--classes")


def _size(said: str | None, weights: Weights) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", said or "")
    if said is None and weights.size is not None:
        return weights.size
    if match is None or not all(8 <= int(side) <= 8192 for side in match.groups()):
        raise ConfigError(f"--size: {said or 'is required'}: HEIGHTxWIDTH in pixels, such as 352x480, 8 to 8192 each")
    return int(match[1]), int(match[2])


def _pairs(data: Path, split: str, *, classes: int) -> Pairs:
    """Of a split as many as calibration takes, and as many between them to compare on."""
    from stream_seg.training.calibration import CALIBRATED_ON, spaced

    paths = spaced(pair_paths(data, split), 2 * CALIBRATED_ON)
    read = [read_pair(*pair, classes=classes) for pair in paths]
    return Pairs([image for image, _ in read], [labels for _, labels in read])


def _require(*modules_and_purpose: str) -> None:
    """Raise ConfigError for a package that is not installed: now, not after hours of training."""
    *modules, purpose = modules_and_purpose
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{purpose}, {', '.join(missing)} must be installed: pip install 'stream-seg[train]'")
