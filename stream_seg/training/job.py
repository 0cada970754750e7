"""What is trained, on what, with which teacher: everything about a run that stands still while it runs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from stream_seg.classes import Classes
from stream_seg.dataset import Pairs, read_pairs
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.training.batches import synth_labels
from stream_seg.training.recipe import Recipe, classes_of
from stream_seg.zoo import BUILDERS
from stream_seg.zoo.weights.check import refuse_misfit, refuse_worse
from stream_seg.zoo.weights.fit import fit
from stream_seg.zoo.weights.normalise import InputSpec
from stream_seg.zoo.weights.source import Weights, open_weights, sidecar_of

RUNS = 4
"""Neighbouring pictures of a drive are nearly the same: what is held back is that many runs, not single pictures."""


@dataclass(frozen=True)
class Job:
    """`held` is what the network is scored on; `teacher` and what it expects of a picture, where there is one."""

    recipe: Recipe
    net: nn.Module
    spec: InputSpec
    pairs: Pairs
    classes: Classes
    held: Pairs | None = None
    teacher: tuple[nn.Module, InputSpec] | None = None


def prepared(recipe: Recipe, *, data: Path | None = None, where: str, resumed: Path | None = None) -> Job:
    """The job of a recipe, its data read and its networks built; of `resumed`, a checkpoint, what pictures it expects.

    Raises ConfigError, SourceError or NetworkError.
    """
    classes, folder = classes_of(recipe, where=where), data or recipe.data
    if recipe.synth:
        synth_labels(classes)
    if recipe.sky is not None and recipe.sky >= len(classes):
        raise ConfigError(f"{where}: sky: {recipe.sky} is no label; 0 to {len(classes) - 1} are the classes")
    for name in recipe.paste.classes if recipe.paste else ():
        if name not in classes.names:
            raise ConfigError(f"{where}: paste: unknown class {name!r}; known: {', '.join(classes.names)}")
    refuse_network(recipe.network, where=f"{where}: network")
    if recipe.distil:
        refuse_network(recipe.distil.network, where=f"{where}: distil: network")
    pairs = read_pairs(folder, recipe.split, classes=len(classes))
    held = read_pairs(folder, recipe.val, classes=len(classes)) if recipe.val else None
    if recipe.held_back:
        pairs, held = divided(pairs, recipe.held_back, where=where)
    refuse_sizes(recipe, classes=len(classes), where=where)
    torch.manual_seed(recipe.seed)
    net = built(recipe.network, len(classes))
    known = None if resumed is None else open_weights(resumed, network=recipe.network).spec
    spec = known or begun(recipe, net, pairs, classes, where=where)
    return Job(recipe, net, spec, pairs, classes, held, _teacher(recipe, pairs, classes, where=where))


def refuse_network(network: str, *, where: str) -> None:
    """Raise ConfigError for a name that is none of the zoo's."""
    if network not in BUILDERS:
        raise ConfigError(f"{where}: unknown {network!r}; known: {', '.join(BUILDERS)}")


def refuse_sizes(recipe: Recipe, *, classes: int, where: str) -> None:
    """Raise ConfigError where the network takes no picture of `size`, or cannot learn from `batch` crops of `crop`."""
    for key, size, count in (("size", recipe.size, 1), ("crop", recipe.crop, recipe.batch)):
        try:
            with torch.device("meta"):  # shapes alone
                built(recipe.network, classes).train(key == "crop")(torch.zeros(count, 3, *size))
        except NetworkError as error:
            raise ConfigError(f"{where}: {key}: {error}") from error
        except ValueError as error:  # batch normalisation of a single value
            raise ConfigError(
                f"{where}: batch: {count} crops of {size[0]}x{size[1]} are too little for {recipe.network}: {error}"
            ) from error


def built(network: str, classes: int) -> nn.Module:
    """A network of the zoo with new weights."""
    builder = BUILDERS[network]
    module, _, name = builder.builder.partition(":")
    net: nn.Module = getattr(importlib.import_module(module), name)(classes, **builder.keys)
    return net


def divided(pairs: Pairs, share: float, *, where: str) -> tuple[Pairs, Pairs]:
    """What is trained on, and the `share` that is held back: the end of each of four runs of neighbours."""
    place = [index * RUNS / len(pairs) % 1 for index in range(len(pairs))]
    parts = [[i for i, at in enumerate(place) if (at >= 1 - share) == held] for held in (False, True)]
    if not all(parts):
        raise ConfigError(f"{where}: held_back: {share:g} of {len(pairs)} pictures leaves nothing on one side")
    trained, held = (Pairs([pairs.images[i] for i in part], [pairs.labels[i] for i in part]) for part in parts)
    return trained, held


def begun(recipe: Recipe, net: nn.Module, pairs: Pairs, classes: Classes, *, where: str) -> InputSpec:
    """Load what `start:` or `weights:` names into `net`; what pictures are to be made into for it."""
    if recipe.start is not None and not recipe.start.is_file():
        raise ConfigError(f"{where}: start: no such file: {recipe.start}")
    told = None
    if recipe.mean is not None and recipe.std is not None:
        told = InputSpec(recipe.mean, recipe.std, recipe.colour, recipe.input_scale)
    source = recipe.weights or recipe.start
    if source is None:
        assert told is not None, "read_recipe asks for it"
        return told
    weights = open_weights(source, network=recipe.network)
    spec = agreed(weights.spec, told, source=weights.source, where=where)
    new = fit(net, weights.state, classes=len(classes), where=weights.source, head=recipe.head)
    if not new:
        refuse_classes(weights, classes, where=f"{where}: {weights.source}")
    if recipe.weights and recipe.check_input:
        refuse_misfit(net, spec, pairs.images, where=f"{weights.source} (check_input)")
        if not new:
            refuse_worse(net, spec, pairs, classes, where=f"{weights.source} (check_input)")
    return spec


def refuse_classes(weights: Weights, classes: Classes, *, where: str) -> None:
    """Raise ConfigError where weights say that they mean other classes, or the same in another order."""
    if weights.classes is not None and weights.classes.names != classes.names:
        theirs, ours = (", ".join(names) for names in (weights.classes.names, classes.names))
        raise ConfigError(f"{where}: its classes are {theirs}; the recipe's are {ours}")


def agreed(known: InputSpec | None, told: InputSpec | None, *, source: str, where: str) -> InputSpec:
    """What weights expect of a picture, by their own papers and by whoever uses them. Raises ConfigError."""
    spec = known or told
    if spec is None:
        raise ConfigError(
            f"{where}: nothing says how {source} wants its pictures: write colour, scale, mean, std and classes into"
            f" {sidecar_of(Path(source)).name} beside it"
        )
    if known and told and known != told:
        raise ConfigError(f"{where}: says {told}; {source} was trained with {known}; leave mean and std out")
    return spec


def _teacher(recipe: Recipe, pairs: Pairs, classes: Classes, *, where: str) -> tuple[nn.Module, InputSpec] | None:
    if recipe.distil is None:
        return None
    weights = open_weights(recipe.distil.weights, network=recipe.distil.network)
    spec = agreed(weights.spec, None, source=weights.source, where=f"{where}: distil")
    refuse_classes(weights, classes, where=f"{where}: distil: {weights.source}")
    net = built(recipe.distil.network, len(classes))
    fit(net, weights.state, classes=len(classes), where=weights.source)
    if recipe.check_input:
        refuse_misfit(net, spec, pairs.images, where=f"{weights.source} (check_input)")
        refuse_worse(net, spec, pairs, classes, where=f"{weights.source} (check_input)")
    return net.eval().requires_grad_(False), spec
