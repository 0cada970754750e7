"""Training recipes: the keys of a YAML file, and the checks that they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stream_seg.datasets.palettes import PALETTES
from stream_seg.errors import ConfigError
from stream_seg.files import expand_home
from stream_seg.network.sidecar import Names, Palette, PositiveTriple, Size, Triple, make_classes
from stream_seg.schema.validation import describe_unknown, validate
from stream_seg.schema.yaml import read_yaml
from stream_seg.types import Classes

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
Share = Annotated[float, Field(gt=0, lt=1)]
HomePath = Annotated[Path, AfterValidator(expand_home)]


class Ohem(BaseModel):
    """Online hard example mining (Shrivastava et al., CVPR 2016, section 4): only hard pixels count."""

    model_config = STRICT

    threshold: Annotated[Share, Field(description="a pixel is hard if its true class is less probable")] = 0.7
    keep: Annotated[Share, Field(description="the share of a batch's pixels that counts at least, the hardest")] = 0.1


class Paste(BaseModel):
    """Paste classes of one crop in place into another (ClassMix: Olsson et al., WACV 2021, section 3.1)."""

    model_config = STRICT

    classes: Annotated[Names, Field(description="classes to paste, each with a chance of one half")]
    share: Annotated[Share, Field(description="share of the crops that get pixels of another")] = 0.5


class Repaint(BaseModel):
    """Give classes another tint and light than their surroundings."""

    model_config = STRICT

    classes: Annotated[Names, Field(description="classes to repaint, each with a chance of two thirds")]
    share: Annotated[Share, Field(description="share of the crops")] = 0.5


class Distil(BaseModel):
    """Distillation from a larger network or from enlarged crops (Hinton et al., arXiv 1503.02531, section 2)."""

    model_config = STRICT

    network: Annotated[str, Field(description="the teacher: a name of `stream-seg networks`")]
    weights: Annotated[str, Field(description="the teacher's weights, as `weights` of a recipe")]
    scales: Annotated[
        tuple[Annotated[float, Field(ge=0.25, le=4)], ...],
        Field(min_length=1, description="enlargements of a crop over which the teacher's output is averaged"),
    ] = (1.0,)
    temperature: Annotated[float, Field(gt=0, description="divisor of the scores of both networks")] = 2.0
    share: Annotated[Share, Field(description="weight of the teacher's loss; the labels' loss has the rest")] = 0.5


class Recipe(BaseModel):
    """Network, data, loss and schedule of a training. Sizes are (height, width) in pixels."""

    model_config = STRICT

    network: Annotated[str, Field(description="a name of `stream-seg networks`")]
    data: Annotated[HomePath, Field(description="folder of SPLIT/ and SPLITannot/")]
    split: str = "train"
    classes: Annotated[
        str | Names, Field(description="camvid, cityscapes, voc, or names in the order of the labels")
    ] = "camvid"
    palette: Annotated[
        Palette | None, Field(description="a data set, or [red, green, blue] per class; default: distinct hues")
    ] = None
    size: Annotated[Size, Field(description="input of the exported network")] = (384, 640)
    mean: Annotated[
        Triple | None, Field(description="subtracted after scaling, in the order of `colour`; default: the weights'")
    ] = None
    std: Annotated[PositiveTriple | None, Field(description="divided by after that, in the order of `colour`")] = None
    colour: Annotated[Literal["bgr", "rgb"], Field(description="channel order of the network's input")] = "bgr"
    input_scale: Annotated[float, Field(gt=0, description="divisor of 0-255")] = 255.0
    crop: Annotated[Size, Field(description="size of training crops")] = (288, 384)
    sky: Annotated[int | None, Field(ge=0, description="label whose pixels get another sky half of the time")] = None
    light: Annotated[
        float, Field(ge=0, le=1, description="share of crops under another light: darker, paler, in patches")
    ] = 0.0
    start: Annotated[HomePath | None, Field(description="checkpoint whose averaged weights to start from")] = None
    weights: Annotated[
        str | None, Field(description="weights to start from: a file, a name of torchvision's, or road (shipped)")
    ] = None
    backbone: Annotated[
        str | None,
        Field(description="weights for the encoder only, a VGG16 or ResNet: a file, or a name of torchvision's"),
    ] = None
    head: Annotated[Literal["keep", "new"], Field(description="new: replace the last layers, for other classes")] = (
        "keep"
    )
    check_input: Annotated[
        bool, Field(description="reject weights that were trained with another input normalisation, if detected")
    ] = True
    scale: Annotated[tuple[float, float], Field(description="smallest and largest enlargement")] = (0.5, 2.0)
    rotate: Annotated[float, Field(ge=0, le=45, description="largest angle in degrees, in both directions")] = 0.0
    synth: Annotated[
        float, Field(ge=0, le=1, description="share of crops from synth://road, with their exact labels")
    ] = 0.0
    paste: Paste | None = None
    repaint: Repaint | None = None
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.002
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    schedule: Annotated[
        Literal["poly", "one_cycle", "hold"],
        Field(
            description="poly: DeepLab's decay; one_cycle: up for three tenths, then down (Smith, Topin, arXiv"
            " 1708.07120); hold: constant, then down to 0 in the last third"
        ),
    ] = "poly"
    warm_up: Annotated[int, Field(ge=1, description="steps until the full learning rate; not for one_cycle")] = 300
    loss: Annotated[
        Literal["weighted", "lovasz", "ohem"],
        Field(
            description="weighted: class-weighted cross-entropy and half the Dice loss; lovasz: the Lovasz-softmax loss"
            " instead of Dice; ohem: cross-entropy of hard pixels only"
        ),
    ] = "weighted"
    ohem: Ohem = Ohem()
    distil: Distil | None = None
    balance: Annotated[
        float, Field(ge=0, le=1, description="class weights are one over this power of the class's share of pixels")
    ] = 0.5
    ema: Annotated[float, Field(ge=0, lt=1, description="decay per step of the average of the weights")] = 0.998
    auxiliary: Annotated[float, Field(ge=0, description="weight of the auxiliary loss, if the network has one")] = 0.4
    val: Annotated[str | None, Field(description="split to score the averaged weights on")] = None
    held_back: Annotated[
        Share | None, Field(description="share of `split` to score on instead, in four runs of consecutive images")
    ] = None
    validate_every: Annotated[int, Field(ge=1, description="steps between scores")] = 500
    save_every: Annotated[int, Field(ge=1, description="steps between checkpoints")] = 250
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: CUDA if available")] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1


MAY_DIFFER = ("data", "device", "save_every")
"""Keys that may change when a run resumes; any other would make it a different run."""


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file. Raises ConfigError for invalid and for contradictory keys."""
    recipe = validate(Recipe, read_yaml(path), where=str(path))
    for fault in _contradictions(recipe):
        raise ConfigError(f"{path}: {fault}")
    return recipe


def _contradictions(recipe: Recipe) -> list[str]:
    keys, (smallest, largest) = recipe.model_fields_set, recipe.scale
    starts = [start for start in (recipe.start, recipe.weights, recipe.backbone) if start is not None]
    faults = {
        "val: and held_back: exclude each other": recipe.val and recipe.held_back,
        "validate_every: requires val: or held_back:": "validate_every" in keys
        and not (recipe.val or recipe.held_back),
        "start:, weights: and backbone: exclude each other": len(starts) > 1,
        "head: requires weights:": "head" in keys and not recipe.weights,
        "check_input: requires weights: or distil:": "check_input" in keys and not (recipe.weights or recipe.distil),
        "val: is the split that is trained on; held_back: scores on a share of it": recipe.val == recipe.split,
        "warm_up: is not allowed with schedule: one_cycle": "warm_up" in keys and recipe.schedule == "one_cycle",
        f"warm_up: {recipe.warm_up} must be less than steps: {recipe.steps}": recipe.schedule != "one_cycle"
        and recipe.warm_up >= recipe.steps,
        "ohem: requires loss: ohem": "ohem" in keys and recipe.loss != "ohem",
        "paste: requires batch: 2 or more": recipe.paste and recipe.batch == 1,
        "mean: and std: require each other": (recipe.mean is None) != (recipe.std is None),
        "mean: and std: are required without weights:, backbone: or start:": recipe.mean is None and not starts,
        "colour: and input_scale: require mean: and std:": recipe.mean is None and {"colour", "input_scale"} & keys,
        f"scale: [{smallest:g}, {largest:g}] must be ascending, within 0.05 and 20": not (
            0.05 <= smallest <= largest <= 20
        ),
    }
    return [fault for fault, applies in faults.items() if applies]


def resolve_classes(recipe: Recipe, *, where: str) -> Classes:
    """Return the classes of a recipe with their colours. Raises ConfigError."""
    if not isinstance(recipe.classes, str):
        if len(recipe.classes) < 2:
            raise ConfigError(f"{where}: classes: {recipe.classes[0]} alone; at least two classes are required")
        return make_classes(recipe.classes, recipe.palette, where=where)
    if recipe.classes not in PALETTES:
        raise ConfigError(
            f"{where}: classes: {describe_unknown('data set', recipe.classes, PALETTES)}, or a list of names"
        )
    return make_classes(PALETTES[recipe.classes].names, recipe.palette or recipe.classes, where=where)
