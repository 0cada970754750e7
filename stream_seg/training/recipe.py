"""Training recipes: the keys of a YAML file, and the checks that they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stream_seg.datasets.palettes import DATA_SETS
from stream_seg.errors import ConfigError
from stream_seg.files.writing import expand_home
from stream_seg.network.sidecar import Names, Palette, PositiveTriple, Size, Triple, make_classes
from stream_seg.schema.validation import describe_unknown, validate
from stream_seg.schema.yaml import read_yaml
from stream_seg.types import Classes

Share = Annotated[float, Field(gt=0, lt=1)]
HomePath = Annotated[Path, AfterValidator(expand_home)]


class Keys(BaseModel):
    """Keys of a recipe; others are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Ohem(Keys):
    """Online hard example mining (Shrivastava et al., CVPR 2016, section 4): only hard pixels count."""

    threshold: Share = 0.7  # a pixel is hard if its true class is less probable
    keep: Share = 0.1  # the share of a batch's pixels that counts at least, the hardest


class CropClasses(Keys):
    """Classes that are pasted or repainted, in a share of the crops."""

    classes: Names
    share: Share = 0.5


class Distil(Keys):
    """Distillation from a larger network or from enlarged crops (Hinton et al., arXiv 1503.02531, section 2)."""

    network: str  # the teacher: a name of `stream-seg networks`
    weights: str  # the teacher's, as `weights` of a recipe
    # enlargements of a crop over which the teacher's output is averaged
    scales: Annotated[tuple[Annotated[float, Field(ge=0.25, le=4)], ...], Field(min_length=1)] = (1.0,)
    temperature: Annotated[float, Field(gt=0)] = 2.0  # divisor of the scores of both networks
    share: Share = 0.5  # weight of the teacher's loss; the labels' loss has the rest


class Recipe(Keys):
    """Network, data, loss and schedule of a training. Sizes are (height, width) in pixels."""

    network: str  # a name of `stream-seg networks`
    data: HomePath  # folder of SPLIT/ and SPLITannot/
    split: str = "train"
    classes: str | Names = "camvid"  # camvid, cityscapes, voc, or names in the order of the labels
    palette: Palette | None = None  # a data set, or [red, green, blue] per class; by default distinct colours
    size: Size = (384, 640)  # input of the exported network
    mean: Triple | None = None  # of x / 255, in the order of `colour`; by default the weights'
    std: PositiveTriple | None = None
    colour: Literal["bgr", "rgb"] = "bgr"  # channel order of the network's input
    start: HomePath | None = None  # checkpoint whose averaged weights to start from
    weights: str | None = None  # weights to start from: a file, a name of torchvision's, or road (shipped)
    backbone: str | None = None  # weights for a VGG16 or ResNet as encoder only: a file, or a name of torchvision's
    head: Literal["keep", "new"] = "keep"  # new: replace the last layers, for other classes
    check_input: bool = True  # reject weights that were trained with another input normalisation, if detected
    crop: Size = (288, 384)  # size of training crops
    scale: tuple[float, float] = (0.5, 2.0)  # smallest and largest enlargement
    rotate: Annotated[float, Field(ge=0, le=45)] = 0.0  # largest angle in degrees, in both directions
    sky: Annotated[int | None, Field(ge=0)] = None  # label whose pixels get another sky half of the time
    light: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of crops under another light: darker, paler, in patches
    synth: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of crops from synth://road, with their exact labels
    paste: CropClasses | None = None  # paste each class with a chance of one half (`augment.paste_classes`)
    repaint: CropClasses | None = None  # repaint each class with a chance of two thirds (`augment.repaint_classes`)
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.002
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    schedule: Literal["poly", "one_cycle", "hold"] = "poly"  # see `loop.learning_rate`
    warm_up: Annotated[int, Field(ge=1)] = 300  # steps until the full learning rate; not for one_cycle
    loss: Literal["weighted", "lovasz", "ohem"] = "weighted"  # cross-entropy with Dice, with Lovasz, of hard pixels
    ohem: Ohem = Ohem()
    distil: Distil | None = None
    balance: Annotated[float, Field(ge=0, le=1)] = 0.5  # class weights: 1 / (share of the pixels) ** balance
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998  # decay per step of the average of the weights
    auxiliary: Annotated[float, Field(ge=0)] = 0.4  # weight of the auxiliary loss, if the network has one
    val: str | None = None  # split to score the averaged weights on
    held_back: Share | None = None  # share of `split` to score on instead, in four runs of consecutive images
    validate_every: Annotated[int, Field(ge=1)] = 500  # steps between scores
    save_every: Annotated[int, Field(ge=1)] = 250  # steps between checkpoints
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA if available
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1


MAY_DIFFER = ("data", "device", "save_every")
"""Keys that may change when a run resumes; any other would make it a different run."""


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file. Raises ConfigError for invalid and for contradictory keys."""
    recipe = validate(Recipe, read_yaml(path), where=str(path))
    for fault, applies in _contradictions(recipe).items():
        if applies:
            raise ConfigError(f"{path}: {fault}")
    return recipe


def _contradictions(recipe: Recipe) -> dict[str, object]:
    keys, (smallest, largest), scored = recipe.model_fields_set, recipe.scale, recipe.val or recipe.held_back
    starts = [start for start in (recipe.start, recipe.weights, recipe.backbone) if start is not None]
    warms_up = recipe.schedule != "one_cycle"
    return {
        "val: and held_back: exclude each other": recipe.val and recipe.held_back,
        "validate_every: requires val: or held_back:": "validate_every" in keys and not scored,
        "start:, weights: and backbone: exclude each other": len(starts) > 1,
        "head: requires weights:": "head" in keys and not recipe.weights,
        "check_input: requires weights: or distil:": "check_input" in keys and not (recipe.weights or recipe.distil),
        "val: is the split that is trained on; held_back: scores on a share of it": recipe.val == recipe.split,
        "warm_up: is not allowed with schedule: one_cycle": "warm_up" in keys and not warms_up,
        f"warm_up: {recipe.warm_up} must be less than steps: {recipe.steps}": warms_up
        and recipe.warm_up >= recipe.steps,
        "ohem: requires loss: ohem": "ohem" in keys and recipe.loss != "ohem",
        "paste: requires batch: 2 or more": recipe.paste and recipe.batch == 1,
        "mean: and std: require each other": (recipe.mean is None) != (recipe.std is None),
        "mean: and std: are required without weights:, backbone: or start:": recipe.mean is None and not starts,
        "colour: requires mean: and std:": recipe.mean is None and "colour" in keys,
        f"scale: [{smallest:g}, {largest:g}] must be ascending, within 0.05 and 20": smallest < 0.05
        or not smallest <= largest <= 20,
    }


def resolve_classes(recipe: Recipe, *, where: str) -> Classes:
    """Return the classes of a recipe with their colours. Raises ConfigError."""
    names, palette = recipe.classes, recipe.palette
    if isinstance(names, str):
        if names not in DATA_SETS:
            raise ConfigError(f"{where}: classes: {describe_unknown('data set', names, DATA_SETS)}, or a list of names")
        names = DATA_SETS[names].names
    if len(names) < 2:
        raise ConfigError(f"{where}: classes: {names[0]} alone; at least two classes are required")
    return make_classes(names, palette, where=where)
