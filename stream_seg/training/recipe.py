"""A training recipe as its YAML says it, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stream_seg.datasets.palettes import PALETTES
from stream_seg.errors import ConfigError
from stream_seg.files import at_home
from stream_seg.network.sidecar import Names, Palette, PositiveTriple, Size, Triple, coloured
from stream_seg.schema.validation import describe_unknown, validate
from stream_seg.schema.yaml import read_yaml
from stream_seg.types import Classes

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
Share = Annotated[float, Field(gt=0, lt=1)]
Place = Annotated[Path, AfterValidator(at_home)]


class Ohem(BaseModel):
    """Online hard example mining (Shrivastava et al., CVPR 2016, section 4): only what is hard teaches."""

    model_config = STRICT

    threshold: Annotated[Share, Field(description="a pixel is hard whose true class has less probability")] = 0.7
    keep: Annotated[Share, Field(description="at least this share of a batch's pixels, the hardest, counts")] = 0.1


class Paste(BaseModel):
    """Things of one crop put into another, where they stood (ClassMix: Olsson et al., WACV 2021, section 3.1)."""

    model_config = STRICT

    classes: Annotated[Names, Field(description="what is put, each with a chance of one half where the other has it")]
    share: Annotated[Share, Field(description="of the crops that another is held against")] = 0.5


class Repaint(BaseModel):
    """Things in other colours and under another light than what is around them."""

    model_config = STRICT

    classes: Annotated[Names, Field(description="what is repainted, each by itself, with a chance of two thirds")]
    share: Annotated[Share, Field(description="of the crops")] = 0.5


class Distil(BaseModel):
    """Learn from a larger network too, or a closer look (Hinton, Vinyals, Dean, arXiv 1503.02531, section 2)."""

    model_config = STRICT

    network: Annotated[str, Field(description="the teacher: a name of stream_seg.zoo.BUILDERS")]
    weights: Annotated[str, Field(description="the teacher's weights: as `weights` of a recipe")]
    scales: Annotated[
        tuple[Annotated[float, Field(ge=0.25, le=4)], ...],
        Field(min_length=1, description="what it sees a crop enlarged by; the mean of these looks is what it says"),
    ] = (1.0,)
    temperature: Annotated[float, Field(gt=0, description="what both networks' scores are divided by")] = 2.0
    share: Annotated[Share, Field(description="weight of the teacher's word; the labels have the rest")] = 0.5


class Recipe(BaseModel):
    """What is trained, on what, how long. Sizes are (height, width) in pixels."""

    model_config = STRICT

    network: Annotated[str, Field(description="a name of stream_seg.zoo.BUILDERS")]
    data: Annotated[Place, Field(description="holds SPLIT/ and SPLITannot/")]
    split: str = "train"
    classes: Annotated[
        str | Names, Field(description="camvid, cityscapes, voc, or names in the order of the labels")
    ] = "camvid"
    palette: Annotated[
        Palette | None, Field(description="a data set's, or [red, green, blue] for each class; absent: well apart")
    ] = None
    size: Annotated[Size, Field(description="input of the exported network")] = (384, 640)
    mean: Annotated[
        Triple | None, Field(description="subtracted after scaling, in the order of `colour`; absent: the weights'")
    ] = None
    std: Annotated[PositiveTriple | None, Field(description="divided by after that, in the order of `colour`")] = None
    colour: Annotated[Literal["bgr", "rgb"], Field(description="order of the colours that the network takes")] = "bgr"
    input_scale: Annotated[float, Field(gt=0, description="what 0-255 is divided by")] = 255.0
    crop: Annotated[Size, Field(description="what a step sees of a picture")] = (288, 384)
    sky: Annotated[int | None, Field(ge=0, description="label that gets another weather half of the time")] = None
    light: Annotated[
        float, Field(ge=0, le=1, description="share of crops under another light: darker, paler, in patches")
    ] = 0.0
    start: Annotated[Place | None, Field(description="checkpoint whose averaged weights are the beginning")] = None
    weights: Annotated[
        str | None, Field(description="weights to begin with: a file, a name of torchvision's, or road (shipped)")
    ] = None
    backbone: Annotated[
        str | None,
        Field(description="or weights of its encoder alone, a VGG16 or ResNet: a file, or a name of torchvision's"),
    ] = None
    head: Annotated[
        Literal["keep", "new"], Field(description="new: the last layers of weights of other classes begin anew")
    ] = "keep"
    check_input: Annotated[
        bool,
        Field(description="refuse weights that were trained on pictures prepared in another way, as far as it shows"),
    ] = True
    scale: Annotated[tuple[float, float], Field(description="smallest and largest enlargement")] = (0.5, 2.0)
    rotate: Annotated[float, Field(ge=0, le=45, description="largest angle, either way, in degrees")] = 0.0
    synth: Annotated[
        float, Field(ge=0, le=1, description="share of crops that are drawn (synth://road), with their exact labels")
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
            " 1708.07120); hold: the full learning rate, then down to 0 in the last third"
        ),
    ] = "poly"
    warm_up: Annotated[int, Field(ge=1, description="steps until the full learning rate; not in one_cycle")] = 300
    loss: Annotated[
        Literal["weighted", "lovasz", "ohem"],
        Field(
            description="weighted: cross-entropy by class and half the Dice loss; lovasz: the Lovasz-softmax loss"
            " instead of Dice; ohem: cross-entropy of hard pixels alone"
        ),
    ] = "weighted"
    ohem: Ohem = Ohem()
    distil: Distil | None = None
    balance: Annotated[
        float, Field(ge=0, le=1, description="a class weighs one over this power of its share of the pixels")
    ] = 0.5
    ema: Annotated[float, Field(ge=0, lt=1, description="what the average of the weights keeps per step")] = 0.998
    auxiliary: Annotated[float, Field(ge=0, description="weight of the auxiliary loss, where there is one")] = 0.4
    val: Annotated[str | None, Field(description="the split that the averaged weights are scored on")] = None
    held_back: Annotated[
        Share | None, Field(description="or a share of `split`, in four runs of neighbours, that is not trained on")
    ] = None
    validate_every: Annotated[int, Field(ge=1, description="steps from score to score")] = 500
    save_every: Annotated[int, Field(ge=1, description="steps from checkpoint to checkpoint")] = 250
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto takes CUDA where it is")] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1


MAY_DIFFER = ("data", "device", "save_every")
"""Keys that may be changed when a run goes on; every other would make it another run."""


def read_recipe(path: Path) -> Recipe:
    """The recipe that a YAML file holds. Raises ConfigError for what is wrong or contradictory."""
    said = read_yaml(path)
    recipe = validate(Recipe, said, where=str(path))
    for fault in _contradictions(recipe, said):
        raise ConfigError(f"{path}: {fault}")
    return recipe


def _contradictions(recipe: Recipe, said: Mapping[str, Any]) -> list[str]:
    scored = recipe.val is not None or recipe.held_back is not None
    smallest, largest = recipe.scale
    faults = {
        "val: and held_back: are two ways to the same; one of them": recipe.val and recipe.held_back,
        "validate_every: needs val: (a split) or held_back: (a share of the split)": "validate_every" in said
        and not scored,
        "start:, weights: and backbone: are several beginnings; one of them": sum(
            beginning is not None for beginning in (recipe.start, recipe.weights, recipe.backbone)
        )
        > 1,
        "head: is for weights:, which is missing": "head" in said and not recipe.weights,
        "check_input: is for weights: and distil:, which are missing": "check_input" in said
        and not (recipe.weights or recipe.distil),
        "val: is the split that is trained on; held_back: keeps a share of it": recipe.val == recipe.split,
        "warm_up: is not in schedule: one_cycle, which has its own": "warm_up" in said
        and recipe.schedule == "one_cycle",
        f"warm_up: {recipe.warm_up} steps are not fewer than steps: {recipe.steps}": recipe.schedule != "one_cycle"
        and recipe.warm_up >= recipe.steps,
        "ohem: is for loss: ohem": "ohem" in said and recipe.loss != "ohem",
        "paste: takes from another crop of the batch; batch: 1 has none": recipe.paste and recipe.batch == 1,
        "mean: and std: belong together": (recipe.mean is None) != (recipe.std is None),
        "mean: and std: are required where no weights:, backbone: or start: brings its own": recipe.mean is None
        and not (recipe.weights or recipe.backbone or recipe.start),
        "colour: and input_scale: belong to mean: and std:, which are missing": recipe.mean is None
        and {"colour", "input_scale"} & said.keys(),
        f"scale: [{smallest:g}, {largest:g}] is not a smallest and a largest enlargement, within 0.05 and 20": not (
            0.05 <= smallest <= largest <= 20
        ),
    }
    return [fault for fault, there in faults.items() if there]


def classes_of(recipe: Recipe, *, where: str) -> Classes:
    """The classes that a recipe names, with their colours. Raises ConfigError."""
    if not isinstance(recipe.classes, str):
        if len(recipe.classes) < 2:
            raise ConfigError(
                f"{where}: classes: {recipe.classes[0]} alone cannot be told from anything; name the rest"
            )
        return coloured(recipe.classes, recipe.palette, where=where)
    if recipe.classes not in PALETTES:
        raise ConfigError(
            f"{where}: classes: {describe_unknown('data set', recipe.classes, PALETTES)}, or a list of names"
        )
    return coloured(PALETTES[recipe.classes].names, recipe.palette or recipe.classes, where=where)
