"""What is trained, on what, with which teacher: everything about a run that stands still while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from stream_seg.datasets.labelled import Pairs, read_pairs, synth_labels
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files import is_file
from stream_seg.training.losses import scaled
from stream_seg.training.recipe import Recipe, classes_of
from stream_seg.types import Classes
from stream_seg.zoo import BUILDERS, built
from stream_seg.zoo.weights.backbone import load_backbone
from stream_seg.zoo.weights.check import refuse_misfit, refuse_worse
from stream_seg.zoo.weights.fit import fit
from stream_seg.zoo.weights.normalise import InputSpec
from stream_seg.zoo.weights.source import Weights, open_weights

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
    if data is not None:
        recipe = recipe.model_copy(update={"data": data})
    classes = classes_of(recipe, where=where)
    if recipe.synth:
        synth_labels(classes)
    if recipe.sky is not None and recipe.sky >= len(classes):
        raise ConfigError(f"{where}: sky: {recipe.sky} is no label; 0 to {len(classes) - 1} are the classes")
    refuse_network(recipe.network, where=f"{where}: network")
    if recipe.distil:
        refuse_network(recipe.distil.network, where=f"{where}: distil: network")
    pairs = read_pairs(recipe.data, recipe.split, classes=len(classes))
    held = read_pairs(recipe.data, recipe.val, classes=len(classes)) if recipe.val else None
    if recipe.held_back:
        pairs, held = divided(pairs, recipe.held_back, where=where)
    for key, part in (("paste", recipe.paste), ("repaint", recipe.repaint)):
        refuse_absent(part.classes if part else (), pairs, classes, where=f"{where}: {key}", split=recipe.split)
    refuse_sizes(recipe, classes=len(classes), where=where)
    torch.manual_seed(recipe.seed)
    net = built(recipe.network, len(classes))
    known = None if resumed is None else open_weights(resumed, network=recipe.network).spec
    spec = known or begun(recipe, net, pairs, classes, where=where)
    return Job(recipe, net, spec, pairs, classes, held, _teacher(recipe, pairs, classes, where=where))


def refuse_absent(names: Iterable[str], pairs: Pairs, classes: Classes, *, where: str, split: str) -> None:
    """Raise ConfigError for a name that is no class, or of which no picture has any pixel."""
    for name in names:
        label = classes.index(name, where=where)
        if not any((labels == label).any() for labels in pairs.labels):
            raise ConfigError(f"{where}: no picture of {split} has any {name}")


def refuse_network(network: str, *, where: str) -> None:
    """Raise ConfigError for a name that is none of the zoo's."""
    if network not in BUILDERS:
        raise ConfigError(f"{where}: unknown {network!r}; known: {', '.join(BUILDERS)}")


def refuse_sizes(recipe: Recipe, *, classes: int, where: str) -> None:
    """Raise ConfigError where a network takes no picture of `size` or `crop`, or cannot learn from `batch` crops."""
    sizes = [("size", recipe.network, recipe.size), ("crop", recipe.network, recipe.crop)]
    if recipe.distil:
        looks = [scaled(recipe.crop, scale) for scale in recipe.distil.scales]
        sizes += [("distil: network", recipe.distil.network, look) for look in looks]
    for key, network, size in sizes:
        try:
            refuse_size(network, size, classes=classes)
        except NetworkError as error:
            raise ConfigError(f"{where}: {key}: {error}") from error
    try:
        with torch.device("meta"):
            built(recipe.network, classes).train()(torch.zeros(recipe.batch, 3, *recipe.crop))
    except ValueError as error:  # batch normalisation of a single value
        height, width = recipe.crop
        raise ConfigError(
            f"{where}: batch: {recipe.batch} crops of {height}x{width} are too little for {recipe.network}: {error}"
        ) from error


def refuse_size(network: str, size: tuple[int, int], *, classes: int) -> None:
    """Raise NetworkError where `network` takes no picture of `size` = (height, width)."""
    with torch.device("meta"):  # shapes alone
        built(network, classes).eval()(torch.zeros(1, 3, *size))


def divided(pairs: Pairs, share: float, *, where: str) -> tuple[Pairs, Pairs]:
    """What is trained on, and the `share`, at least one, that is held back: the ends of up to RUNS runs."""
    if len(pairs) < 2:
        raise ConfigError(f"{where}: held_back: {share:g} of a single picture leaves nothing on one side")
    count = min(len(pairs) - 1, max(1, round(share * len(pairs))))
    runs, back = min(RUNS, count), set[int]()
    for run in range(runs):
        end = (run + 1) * len(pairs) // runs
        back |= set(range(end - ((run + 1) * count // runs - run * count // runs), end))
    parts = [[i for i in range(len(pairs)) if (i in back) == held] for held in (False, True)]
    trained, held = (Pairs([pairs.images[i] for i in part], [pairs.labels[i] for i in part]) for part in parts)
    return trained, held


def class_layers(network: str, classes: int) -> frozenset[str]:
    """The names of the weights whose size goes by the number of classes."""
    with torch.device("meta"):
        here, more = (built(network, count).state_dict() for count in (classes, classes + 1))
    return frozenset(name for name, value in here.items() if value.shape != more[name].shape)


def begun(recipe: Recipe, net: nn.Module, pairs: Pairs, classes: Classes, *, where: str) -> InputSpec:
    """Load what `start:`, `weights:` or `backbone:` names into `net`; what pictures are to be made into for it."""
    if recipe.start is not None and not is_file(recipe.start, error=ConfigError):
        raise ConfigError(f"{where}: start: no such file: {recipe.start}")
    told = None
    if recipe.mean is not None and recipe.std is not None:
        told = InputSpec(recipe.mean, recipe.std, recipe.colour, recipe.input_scale)
    if recipe.backbone is not None:
        known = load_backbone(net, recipe.backbone, network=recipe.network)
        if known is None and told is None:
            raise ConfigError(f"{where}: mean: and std: are required, which {recipe.backbone} cannot say itself")
        return agreed(Weights(recipe.backbone, {}, known), told, where=where, remedy="leave mean and std out")
    source = recipe.weights or recipe.start
    if source is None:
        assert told is not None, "read_recipe asks for it"
        return told
    weights = open_weights(source, network=recipe.network)
    spec, new = agreed(weights, told, where=where, remedy="leave mean and std out"), recipe.head == "new"
    fit(
        net,
        weights.state,
        classes=len(classes),
        where=weights.source,
        anew=class_layers(recipe.network, len(classes)) if new else (),
        remedy="; to train from them with new last layers, say head: new" if recipe.weights else "",
    )
    if not new:
        refuse_classes(weights, classes, where=f"{where}: {weights.source}")
    if recipe.weights and recipe.check_input:
        refuse_misfit(net, spec, pairs.images, where=f"{weights.source} (check_input)", size=recipe.size)
        if not new:
            refuse_worse(net, spec, pairs, classes, where=f"{weights.source} (check_input)", size=recipe.size)
    return spec


def refuse_classes(weights: Weights, classes: Classes, *, where: str) -> None:
    """Raise ConfigError where weights say that they mean other classes, or the same in another order."""
    if weights.classes is not None and weights.classes.names != classes.names:
        theirs, ours = (", ".join(names) for names in (weights.classes.names, classes.names))
        raise ConfigError(f"{where}: its classes are {theirs}; the recipe's are {ours}")


def agreed(weights: Weights, told: InputSpec | None, *, where: str, remedy: str = "") -> InputSpec:
    """What weights expect of a picture, by their own papers and by whoever uses them; `remedy` is what may be done
    where these differ. Raises ConfigError."""
    spec = weights.spec or told
    if spec is None:
        place = "a side-car" if weights.beside is None else f"{weights.beside.name} beside it"
        raise ConfigError(
            f"{where}: nothing says how {weights.source} wants its pictures: write colour, scale, mean, std and classes"
            f" into {place}"
        )
    if weights.spec and told and weights.spec != told:
        raise ConfigError(f"{where}: says {told}; {weights.source} was trained with {weights.spec}; {remedy}")
    return spec


def _teacher(recipe: Recipe, pairs: Pairs, classes: Classes, *, where: str) -> tuple[nn.Module, InputSpec] | None:
    if recipe.distil is None:
        return None
    weights = open_weights(recipe.distil.weights, network=recipe.distil.network)
    spec = agreed(weights, None, where=f"{where}: distil")
    refuse_classes(weights, classes, where=f"{where}: distil: {weights.source}")
    net = built(recipe.distil.network, len(classes))
    fit(net, weights.state, classes=len(classes), where=weights.source)
    if recipe.check_input:
        look = scaled(recipe.crop, recipe.distil.scales[0])
        refuse_misfit(net, spec, pairs.images, where=f"{weights.source} (check_input)", size=look)
        refuse_worse(net, spec, pairs, classes, where=f"{weights.source} (check_input)", size=look)
    return net.eval().requires_grad_(False), spec
