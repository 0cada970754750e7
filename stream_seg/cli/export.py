"""What `stream-seg export` does, from weights to files that the pipeline runs, or weights to pass on."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stream_seg.datasets.labelled import Pairs, pair_paths, read_pair, read_pairs
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import refuse_unwritable
from stream_seg.training.preflight import refuse_sidecars, require

if TYPE_CHECKING:
    from stream_seg.types import Classes
    from stream_seg.zoo.weights.source import Weights

TRAIN = "train"
"""The split of --data without --split."""


@dataclass(frozen=True)
class Wanted:
    """The options of `stream-seg export`, as typed; of several `weights` the mean is taken. `data` is a folder to
    calibrate int8 and check the input on, `split` that of it, absent: train; `held` the split of it on which the
    accuracy gate judges int8, absent: pictures of `split` that it was not calibrated on. `prefer` is in place of what
    the weights say.
    """

    network: str
    weights: tuple[str, ...]
    out: Path
    classes: str | None = None
    picture: str | None = None
    size: str | None = None
    data: Path | None = None
    split: str | None = None
    check: bool = True
    held: str | None = None
    prefer: Mapping[str, float] = field(default_factory=dict)


def export_command(wanted: Wanted) -> None:
    """Make an engine of the pipeline from weights: FILE.onnx and FILE.json, with data FILE_int8.onnx too.

    Or, named FILE.safetensors, weights to pass on.
    """
    passed_on = wanted.out.suffix.lower() == ".safetensors"
    require("torch", "torchvision", *_needed(wanted, passed_on=passed_on), "to export")
    from stream_seg.training.calibration import calibration
    from stream_seg.training.export import Meaning, export
    from stream_seg.training.setup import agreed, refuse_network, refuse_size
    from stream_seg.zoo import built
    from stream_seg.zoo.weights.check import INPUTS, refuse_misfit, refuse_worse
    from stream_seg.zoo.weights.files import save_weights
    from stream_seg.zoo.weights.fit import fit
    from stream_seg.zoo.weights.source import about, averaged, open_weights

    refuse_network(wanted.network, where="export")
    refuse_contradictions(wanted, known=INPUTS, passed_on=passed_on)
    weights = averaged([open_weights(one, network=wanted.network) for one in wanted.weights])
    spec = agreed(weights, INPUTS.get(wanted.picture or ""), where="--input", remedy="leave --input out")
    classes, size = _classes(wanted.classes, weights), _size(wanted.size, weights, required=not passed_on)
    if size is not None:
        try:
            refuse_size(wanted.network, size, classes=len(classes))
        except NetworkError as error:
            raise ConfigError(f"--size: {error}") from error
    prefer = wanted.prefer or weights.prefer
    for name in prefer:
        classes.index(name, where="--prefer" if wanted.prefer else f"{weights.source}: prefer")
    net = built(wanted.network, len(classes)).eval()
    fit(net, weights.state, classes=len(classes), where=weights.source)
    split = wanted.split or TRAIN
    pairs = None if wanted.data is None else _pairs(wanted.data, split, classes=len(classes))
    if wanted.check:
        images = [] if pairs is None else pairs.images
        where = f"{weights.source} (--no-check exports it all the same)"
        refuse_misfit(net, spec, images, where=where, size=size)
        if pairs is not None:
            refuse_worse(net, spec, pairs, classes, where=where, size=size)
    if passed_on or size is None:
        save_weights(wanted.out, net.state_dict(), about(wanted.network, spec, classes, size, prefer))
        print(wanted.out)
        return
    frames = None
    if pairs is not None and wanted.data is not None:
        held = None if wanted.held is None else read_pairs(wanted.data, wanted.held, classes=len(classes))
        frames = calibration(pairs, size, shown=f"{split}, judged on {wanted.held or split}", held=held)
    written = export(net, wanted.out, Meaning(wanted.out.stem, size, spec, classes, prefer), frames=frames)
    print("\n".join(str(file) for file in written))


def _needed(wanted: Wanted, *, passed_on: bool) -> list[str]:
    if passed_on:
        return ["safetensors"]
    return ["onnxscript", *(["nncf"] if wanted.data else [])]


def refuse_contradictions(wanted: Wanted, *, known: Collection[str], passed_on: bool) -> None:
    """Raise ConfigError or OutputError for options that cannot be meant; `known` are the names for --input."""
    if wanted.picture not in (None, *known):
        raise ConfigError(f"--input: unknown {wanted.picture!r}; known: {', '.join(known)}, or a side-car")
    if not passed_on and wanted.out.suffix.lower() != ".onnx":
        raise ConfigError(
            f"--out: {wanted.out} ends neither in .onnx, for the pipeline, nor in .safetensors, to train on"
        )
    refuse_unwritable(wanted.out)
    if not passed_on:
        refuse_sidecars(wanted.out)
    if wanted.split is not None and wanted.data is None:
        raise ConfigError("--split: is one of --data, which is not given")
    if wanted.held is not None and (wanted.data is None or passed_on):
        raise ConfigError("--held: is the split of --data that an int8 form is judged on; here none is made")
    if wanted.held == (wanted.split or TRAIN):
        raise ConfigError(f"--held: {wanted.held} is what int8 is calibrated on; leave it out to judge on a part of it")


def _classes(said: str | None, weights: Weights) -> Classes:
    """What the labels mean: as said (a data set, names with commas, or a number), or as the weights' papers say."""
    from stream_seg.datasets.palettes import PALETTES
    from stream_seg.network.sidecar import coloured

    if said is None:
        if weights.classes is None:
            raise ConfigError(f"--classes: is required, {weights.source} does not say: a number, names, or camvid")
        return weights.classes
    names = [f"class{i}" for i in range(int(said))] if re.fullmatch(r"\d{1,3}", said) else said.split(",")
    names = list(PALETTES[said].names) if said in PALETTES else [name.strip() for name in names]
    if not 1 <= len(set(names)) == len(names) <= 255 or "" in names:
        raise ConfigError(f"--classes: {said!r}: 1 to 255 names, each once, or their number")
    if weights.classes is not None and list(weights.classes.names) != names:
        theirs = ", ".join(weights.classes.names)
        raise ConfigError(f"--classes: {weights.source} says that its classes are {theirs}; leave --classes out")
    return weights.classes or coloured(names, said if said in PALETTES else None, where="--classes")


def _size(said: str | None, weights: Weights, *, required: bool) -> tuple[int, int] | None:
    from stream_seg.network.sidecar import parsed_size

    if said is not None:
        return parsed_size(said)
    if weights.size is None and required:
        raise ConfigError("--size: is required, HEIGHTxWIDTH in pixels, for example 352x480")
    return weights.size


def _pairs(data: Path, split: str, *, classes: int) -> Pairs:
    """Of a split as many as calibration takes, and as many between them to compare on."""
    from stream_seg.training.calibration import CALIBRATED_ON, spaced

    paths = spaced(pair_paths(data, split), 2 * CALIBRATED_ON)
    read = [read_pair(*pair, classes=classes) for pair in paths]
    return Pairs([image for image, _ in read], [labels for _, labels in read])
