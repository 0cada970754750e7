"""Prepare a training from its recipe: read the data, build the networks, load weights, check everything first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stream_seg.datasets.labelled import Pairs, read_pairs, synth_label_table
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files.writing import is_file
from stream_seg.training.losses import scale_size
from stream_seg.training.recipe import Recipe, resolve_classes
from stream_seg.types import Classes
from stream_seg.zoo import BUILDERS, build_network
from stream_seg.zoo.weights.input_spec import InputSpec, refuse_misfit, refuse_worse
from stream_seg.zoo.weights.load import load_backbone, load_weights
from stream_seg.zoo.weights.source import Weights, open_weights

RUNS = 4
"""Runs of consecutive images that are held back: single ones would have near copies in the training images."""


@dataclass(frozen=True)
class Job:
    """The fixed parts of a training. `val` is what it is scored on; `teacher` is a network and its input spec."""

    recipe: Recipe
    net: nn.Module
    spec: InputSpec
    pairs: Pairs
    classes: Classes
    val: Pairs | None = None
    teacher: tuple[nn.Module, InputSpec] | None = None


def prepare_job(recipe: Recipe, *, data: Path | None = None, where: str, checkpoint: Path | None = None) -> Job:
    """Read the data of a recipe, or of the folder `data`, and build its networks.

    `checkpoint` is one that the run will resume from: its input spec is used, and no other weights are loaded. Raises
    ConfigError, SourceError or NetworkError.
    """
    if data is not None:
        recipe = recipe.model_copy(update={"data": data})
    classes = resolve_classes(recipe, where=where)
    if recipe.synth:
        synth_label_table(classes)
    if recipe.sky is not None and recipe.sky >= len(classes):
        raise ConfigError(f"{where}: sky: {recipe.sky} is no label; labels are 0 to {len(classes) - 1}")
    refuse_network(recipe.network, where=f"{where}: network")
    if recipe.distil:
        refuse_network(recipe.distil.network, where=f"{where}: distil: network")
    pairs = read_pairs(recipe.data, recipe.split, classes=len(classes))
    val = read_pairs(recipe.data, recipe.val, classes=len(classes)) if recipe.val else None
    if recipe.held_back:
        pairs, val = split_held_back(pairs, recipe.held_back, where=where)
    for key, part in (("paste", recipe.paste), ("repaint", recipe.repaint)):
        for name in part.classes if part else ():
            label = classes.index(name, where=f"{where}: {key}")
            if not any((labels == label).any() for labels in pairs.labels):
                raise ConfigError(f"{where}: {key}: no image of {recipe.split} has any {name}")
    refuse_sizes(recipe, classes=len(classes), where=where)
    torch.manual_seed(recipe.seed)
    net = build_network(recipe.network, len(classes))
    known = None if checkpoint is None else open_weights(checkpoint, network=recipe.network).spec
    spec = known or load_start(recipe, net, pairs, classes, where=where)
    return Job(recipe, net, spec, pairs, classes, val, _open_teacher(recipe, pairs, classes, where=where))


def refuse_network(network: str, *, where: str) -> None:
    """Raise ConfigError for an unknown network."""
    if network not in BUILDERS:
        raise ConfigError(f"{where}: unknown {network!r}; known: {', '.join(BUILDERS)}")


def refuse_sizes(recipe: Recipe, *, classes: int, where: str) -> None:
    """Raise ConfigError if a network cannot take images of `size` or `crop`, or be trained on `batch` crops."""
    refuse_size(recipe.network, recipe.size, classes=classes, where=f"{where}: size")
    refuse_size(recipe.network, recipe.crop, classes=classes, where=f"{where}: crop")
    if recipe.distil:
        for scale in recipe.distil.scales:
            size = scale_size(recipe.crop, scale)
            refuse_size(recipe.distil.network, size, classes=classes, where=f"{where}: distil: network")
    try:
        with torch.device("meta"):
            build_network(recipe.network, classes).train()(torch.zeros(recipe.batch, 3, *recipe.crop))
    except ValueError as error:  # batch normalisation of a single value
        crops = f"{recipe.batch} crops of {recipe.crop[0]}x{recipe.crop[1]}"
        raise ConfigError(f"{where}: batch: {crops} are too few for {recipe.network}: {error}") from error


def refuse_size(network: str, size: tuple[int, int], *, classes: int, where: str | None = None) -> None:
    """Raise NetworkError, with `where` ConfigError, if `network` cannot take images of `size` = (height, width)."""
    try:
        with torch.device("meta"):  # computes shapes only
            build_network(network, classes).eval()(torch.zeros(1, 3, *size))
    except NetworkError as error:
        if where is None:
            raise
        raise ConfigError(f"{where}: {error}") from error


def split_held_back(pairs: Pairs, share: float, *, where: str) -> tuple[Pairs, Pairs]:
    """Split pairs into those to train on and the `share` to score on, at least one: the ends of up to RUNS runs."""
    if len(pairs) < 2:
        raise ConfigError(f"{where}: held_back: {share:g} needs at least two images")
    count = min(len(pairs) - 1, max(1, round(share * len(pairs))))
    runs, held_back = min(RUNS, count), np.zeros(len(pairs), bool)
    for run in range(runs):
        end = (run + 1) * len(pairs) // runs
        held_back[end - ((run + 1) * count // runs - run * count // runs) : end] = True
    parts = (np.flatnonzero(held_back == side) for side in (False, True))
    training, val = (Pairs([pairs.images[i] for i in part], [pairs.labels[i] for i in part]) for part in parts)
    return training, val


def class_layers(network: str, classes: int) -> frozenset[str]:
    """Return the names of the weights whose size depends on the number of classes."""
    with torch.device("meta"):
        here, more = (build_network(network, count).state_dict() for count in (classes, classes + 1))
    return frozenset(name for name, value in here.items() if value.shape != more[name].shape)


def load_start(recipe: Recipe, net: nn.Module, pairs: Pairs, classes: Classes, *, where: str) -> InputSpec:
    """Load the weights of `start:`, `weights:` or `backbone:` into `net`. Return the input spec of the training."""
    if recipe.start is not None and not is_file(recipe.start, error=ConfigError):
        raise ConfigError(f"{where}: start: no such file: {recipe.start}")
    own = InputSpec(recipe.mean, recipe.std, recipe.colour) if recipe.mean and recipe.std else None
    if recipe.backbone is not None:
        known = load_backbone(net, recipe.backbone, network=recipe.network)
        if known is None and own is None:
            raise ConfigError(f"{where}: mean: and std: are required, because {recipe.backbone} does not state them")
        return resolve_input_spec(Weights(recipe.backbone, {}, known), own, where=where)
    source = recipe.weights or recipe.start
    if source is None:
        assert own is not None, "read_recipe requires mean and std"
        return own
    weights = open_weights(source, network=recipe.network)
    spec, new_head = resolve_input_spec(weights, own, where=where), recipe.head == "new"
    skip = class_layers(recipe.network, len(classes)) if new_head else ()
    hint = "; head: new trains from them with new last layers" if recipe.weights else ""
    load_weights(net, weights.state, classes=len(classes), where=weights.source, skip=skip, hint=hint)
    if not new_head:
        refuse_classes(weights, classes, where=f"{where}: {weights.source}")
    if recipe.weights and recipe.check_input:
        _check_input(net, spec, pairs, None if new_head else classes, where=weights.source, size=recipe.size)
    return spec


def _check_input(
    net: nn.Module, spec: InputSpec, pairs: Pairs, classes: Classes | None, *, where: str, size: tuple[int, int]
) -> None:
    """Raise ConfigError if `pairs` fit `net` better under another input spec; labels are used with `classes` only."""
    refuse_misfit(net.eval(), spec, pairs.images, where=f"{where} (check_input)", size=size)
    if classes is not None:
        refuse_worse(net, spec, pairs, classes, where=f"{where} (check_input)", size=size)


def refuse_classes(weights: Weights, classes: Classes, *, where: str) -> None:
    """Raise ConfigError if weights state other classes, or the same in another order."""
    if weights.classes is not None and weights.classes.names != classes.names:
        theirs, ours = (", ".join(names) for names in (weights.classes.names, classes.names))
        raise ConfigError(f"{where}: its classes are {theirs}; the recipe's are {ours}")


def resolve_input_spec(
    weights: Weights, spec: InputSpec | None, *, where: str, hint: str = "leave mean and std out"
) -> InputSpec:
    """Return the input spec that weights and user agree on, or that one of them states.

    `spec` is the user's; `hint` ends the error for two that differ. Raises ConfigError, also if neither states one.
    """
    resolved, source = weights.spec or spec, weights.source
    if resolved is None:
        place = "a side-car" if weights.sidecar is None else f"{weights.sidecar.name} beside it"
        raise ConfigError(f"{where}: {source} states no input: write colour, scale, mean, std and classes into {place}")
    if spec and spec != resolved:
        raise ConfigError(f"{where}: {spec} differs from {resolved} of {source}; {hint}")
    return resolved


def _open_teacher(recipe: Recipe, pairs: Pairs, classes: Classes, *, where: str) -> tuple[nn.Module, InputSpec] | None:
    if recipe.distil is None:
        return None
    weights = open_weights(recipe.distil.weights, network=recipe.distil.network)
    spec = resolve_input_spec(weights, None, where=f"{where}: distil")
    refuse_classes(weights, classes, where=f"{where}: distil: {weights.source}")
    net = build_network(recipe.distil.network, len(classes))
    load_weights(net, weights.state, classes=len(classes), where=weights.source)
    if recipe.check_input:
        size = scale_size(recipe.crop, recipe.distil.scales[0])
        _check_input(net, spec, pairs, classes, where=weights.source, size=size)
    return net.eval().requires_grad_(False), spec
