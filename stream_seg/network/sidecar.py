"""What stands beside an ONNX: `SideCar` (YAML) a network of the user's own, `Export` (JSON) one of this project."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from stream_seg.datasets.palettes import PALETTES
from stream_seg.errors import ConfigError
from stream_seg.schema.validation import describe_unknown
from stream_seg.types import Classes

Level = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=8, le=8192)]
Size = tuple[Side, Side]
Triple = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]
PositiveTriple = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=3, max_length=3)]


def parsed_size(text: str) -> tuple[int, int]:
    """(height, width) of "352x480". Raises ConfigError."""
    sides = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if sides is None or not all(8 <= int(side) <= 8192 for side in sides.groups()):
        raise ConfigError(f"--size {text}: expected HEIGHTxWIDTH in pixels, 8 to 8192 each, for example 352x480")
    return int(sides[1]), int(sides[2])


def parsed_prefer(texts: Sequence[str]) -> dict[str, float]:
    """{"pole": 0.5} of ["pole=0.5"]. Raises ConfigError, also for a class that is named twice."""
    prefer: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if name in prefer:
            raise ConfigError(f"--prefer {text}: {name} is named twice; one number is allowed for a class")
        try:
            prefer[name] = TypeAdapter(Preference).validate_python(number)
        except ValidationError as error:
            raise ConfigError(f"--prefer {text}: expected CLASS=NUMBER, -20 to 20, for example pole=0.5") from error
    return prefer


def _different(names: tuple[str | None, ...]) -> tuple[str | None, ...]:
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} named twice")
    return names


Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=255), AfterValidator(_different)]
Palette = str | tuple[tuple[Level, Level, Level], ...]
Preference = Annotated[float, Field(ge=-20, le=20)]
Prefer = Annotated[
    dict[str, Preference],
    Field(description="{class: what is added to its scores}: more of it is found, and more is taken for it"),
]


class Head(BaseModel):
    """One output of a network with several, and what its channels mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    output: Annotated[str, Field(description="name of the ONNX output")]
    channels: Annotated[
        tuple[str | None, ...],
        Field(min_length=1, description="class of each channel; null leaves the pixel to the heads before this one"),
        AfterValidator(_different),
    ]
    threshold: Annotated[
        float,
        Field(description="for an output of a single channel, given two names: the first below it, the second above"),
    ] = 0.0


class SideCar(BaseModel):
    """What a user says of an ONNX network of their own: MODEL.yaml beside MODEL.onnx."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    onnx: Annotated[
        Path | None, Field(description="the network; without it, the file of the same name ending .onnx")
    ] = None
    layout: Annotated[Literal["nchw", "nhwc"], Field(description="order of the axes of input and outputs")] = "nchw"
    colour: Annotated[Literal["rgb", "bgr"], Field(description="order of the colours of the input")] = "rgb"
    size: Annotated[Size | None, Field(description="[height, width] in pixels, where the ONNX leaves it open")] = None
    scale: Annotated[float, Field(gt=0, description="what 0-255 is divided by")] = 255.0
    mean: Annotated[Triple, Field(description="subtracted after scaling, in the order of `colour`")] = (0, 0, 0)
    std: Annotated[PositiveTriple, Field(description="divided by after that, in the order of `colour`")] = (1, 1, 1)
    classes: Annotated[Names, Field(description="names in the order of the labels")]
    palette: Annotated[
        Palette | None, Field(description="a data set's name, or [red, green, blue] for each class; absent: well apart")
    ] = None
    heads: Annotated[tuple[Head, ...], Field(description="where there are several outputs; a later one wins")] = ()
    prefer: Prefer = {}


class Judged(TypedDict):
    """What `backends.gate` found on some pictures.

    `agreement` is the share of pixels with equal labels, over all pictures and in the `worst` one; `miou` that of the
    lower precision with float32 as the truth, 0 to 1. `miou_f32` and `miou_lower` are against the truth of the
    `labelled` pictures, None without any; `miou_loss` is their difference in points of 100, below 0 where the lower
    precision is better.
    """

    pictures: int
    agreement: float
    worst: float
    worst_picture: str
    miou: float
    labelled: int
    miou_f32: float | None
    miou_lower: float | None
    miou_loss: float | None


class Report(TypedDict):
    """The accuracy report that is kept beside an engine and an int8 form (`backends.gate.as_report`)."""

    source: str
    calibration: Judged
    held_back: Judged
    limits: dict[str, float]
    computed_by: str
    refused: str | None
    judged_on: NotRequired[str]


class Quantised(BaseModel):
    """The int8 form beside an export, NAME_int8.onnx: its SHA-256, None where the accuracy gate refused it, and the
    gate's report, None where nothing was compared: random weights."""

    sha256: str | None
    report: Report | None


class Export(BaseModel):
    """What `training.export` writes beside an interchange ONNX. It says more; this much is needed to run it."""

    name: str
    size: Size
    classes: Names
    palette: Palette
    sha256: str
    int8: Quantised | None = None


def coloured(names: Sequence[str], palette: Palette | None, *, where: str) -> Classes:
    """Classes with the colours of `palette`: a data set's (by name, else by place), a list, or hues well apart."""
    if palette is None:
        # steps of the golden ratio: neighbours in the list differ most, whatever its length
        hues = (0.618034 * place % 1 for place in range(len(names)))
        levels = (0.0 if name == "background" else 0.9 for name in names)
        rgb = [colorsys.hsv_to_rgb(hue, 0.7, level) for hue, level in zip(hues, levels, strict=True)]
        return Classes(tuple(names), tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in rgb))
    if not isinstance(palette, str):
        if len(palette) != len(names):
            raise ConfigError(f"{where}: palette: {len(palette)} colours for {len(names)} classes")
        return Classes(tuple(names), palette)
    if palette not in PALETTES:
        raise ConfigError(
            f"{where}: palette: {describe_unknown('palette', palette, PALETTES)}, or a list of [red, green, blue]"
        )
    table = PALETTES[palette]
    if set(names) <= set(table.names):
        return Classes(tuple(names), tuple(table.colours[table.index(name)] for name in names))
    if len(names) != len(table):
        raise ConfigError(
            f"{where}: palette: {palette} has {len(table)} classes, `classes` names {len(names)}, not all of them its"
        )
    return Classes(tuple(names), table.colours)
