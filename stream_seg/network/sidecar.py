"""Side-cars, the files that describe an ONNX: `SideCar` (YAML, a user's own network), `Export` (JSON, an export)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from stream_seg.datasets.palettes import PALETTES, colour_classes
from stream_seg.errors import ConfigError
from stream_seg.schema.validation import describe_unknown
from stream_seg.types import Classes

LOG = logging.getLogger(__name__)

Level = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=8, le=8192)]
Size = tuple[Side, Side]
Triple = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]
PositiveTriple = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=3, max_length=3)]


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "352x480". Raises ConfigError."""
    sides = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if sides is None or not all(8 <= int(side) <= 8192 for side in sides.groups()):
        raise ConfigError(f"--size {text}: expected HEIGHTxWIDTH in pixels, 8 to 8192 each, for example 352x480")
    return int(sides[1]), int(sides[2])


def parse_prefer(texts: Sequence[str]) -> dict[str, float]:
    """Return {"pole": 0.5} of ["pole=0.5"]. Raises ConfigError, also for a class that is named twice."""
    prefer: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if name in prefer:
            raise ConfigError(f"--prefer {text}: {name} is named twice; each class takes one number")
        try:
            prefer[name] = TypeAdapter(Preference).validate_python(number)
        except ValidationError as error:
            raise ConfigError(f"--prefer {text}: expected CLASS=NUMBER, -20 to 20, for example pole=0.5") from error
    return prefer


def _check_unique(names: tuple[str | None, ...]) -> tuple[str | None, ...]:
    duplicates = sorted({str(name) for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f"{', '.join(duplicates)} named twice")
    return names


Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=255), AfterValidator(_check_unique)]
Palette = str | tuple[tuple[Level, Level, Level], ...]
Preference = Annotated[float, Field(ge=-20, le=20)]
Prefer = Annotated[
    dict[str, Preference],
    Field(description="{class: number added to its scores}: above 0, more of the class is found, right and wrong"),
]


class Head(BaseModel):
    """One of several outputs of a network, and the classes of its channels."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    output: str  # name of the ONNX output
    # class of each channel; null leaves the pixel to the heads before this one
    channels: Annotated[tuple[str | None, ...], Field(min_length=1), AfterValidator(_check_unique)]
    # for an output with one channel and two classes: the first below it, the second above; None: follows from the ONNX
    threshold: float | None = None


class SideCar(BaseModel):
    """Description of a user's own ONNX network: MODEL.yaml beside MODEL.onnx."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    onnx: Path | None = None  # path of the network; by default the file of the same name ending in .onnx
    layout: Literal["nchw", "nhwc"] = "nchw"  # order of the axes of input and outputs
    colour: Literal["rgb", "bgr"] = "rgb"  # order of the colours of the input
    size: Size | None = None  # [height, width] in pixels, if the ONNX leaves it open
    scale: Annotated[float, Field(gt=0)] = 255.0  # divisor of the levels 0-255
    mean: Triple = (0, 0, 0)  # subtracted after scaling, in the order of `colour`
    std: PositiveTriple = (1, 1, 1)  # divisor after that, in the order of `colour`
    classes: Names  # in the order of the labels
    palette: Palette | None = None  # distinct (default), camvid, cityscapes, voc, or [red, green, blue] per class
    heads: tuple[Head, ...] = ()  # the outputs to use of several; a later one wins
    prefer: Prefer = {}


class Comparison(TypedDict):
    """Comparison of a lower precision with float32 on some images (`engines.accuracy_gate`).

    `agreement` is the share of pixels with equal labels over all images, `worst` that of the worst image, and `miou`
    the mIoU of the lower precision with float32 as the truth, 0 to 1. `miou_f32` and `miou_lower` are against the truth
    of the `labelled` images, None without any; `miou_loss` is their difference in points of 100, negative where the
    lower precision is better.
    """

    images: int
    agreement: float
    worst: float
    worst_image: str
    miou: float
    labelled: int
    miou_f32: float | None
    miou_lower: float | None
    miou_loss: float | None


class AccuracyReport(TypedDict):
    """Accuracy report, stored with an engine and with an int8 form (`engines.accuracy_gate.measure_accuracy`).

    `refused` is the reason if a limit is exceeded, None else. `judged_on` is the digest of the images and truths.
    """

    source: str
    calibration: Comparison
    held_back: Comparison
    limits: dict[str, float]
    computed_by: str
    refused: str | None
    judged_on: NotRequired[str]


class QuantizedExport(BaseModel):
    """The int8 form beside an export, NAME_int8.onnx.

    `sha256` is None if the accuracy gate refused it, `report` if nothing was compared (random weights).
    """

    sha256: str | None
    report: AccuracyReport | None


class Export(BaseModel):
    """The side-car that `training.export` writes beside a portable ONNX, as far as it is needed to run the network."""

    name: str
    size: Size
    classes: Names
    palette: Palette
    sha256: str
    int8: QuantizedExport | None = None


def make_classes(names: Sequence[str], palette: Palette | None, *, where: str) -> Classes:
    """Return classes with the colours of `palette`: a list, those of a palette by class name, or by default distinct.

    Raises ConfigError, which begins with `where`, for an unknown palette and a list of another length.
    """
    if palette is None or isinstance(palette, str):
        return colour_by_name(tuple(names), palette or "distinct", where=where)
    if len(palette) != len(names):
        raise ConfigError(f"{where}: palette: {len(palette)} colours for {len(names)} classes")
    return Classes(tuple(names), palette)


@lru_cache(maxsize=64)  # so that the warning is logged once
def colour_by_name(names: tuple[str, ...], palette: str, *, where: str) -> Classes:
    """Return classes with the colours of a palette of PALETTES, by name, or by index if it knows none of as many names.

    Classes that the palette does not know get distinct colours, with a warning unless the palette is the default.
    Raises ConfigError, which begins with `where`, for an unknown palette.
    """
    if palette not in PALETTES:
        fault = f"{describe_unknown('palette', palette, PALETTES)}, or a list of [red, green, blue]"
        raise ConfigError(f"{where}: palette: {fault}")
    table = PALETTES[palette]
    classes, unknown = colour_classes(names, table)
    if len(unknown) == len(names) == len(table):
        return Classes(names, table.colours)
    if unknown and palette != "distinct":
        LOG.warning("%s: palette: %s has no colours for %s: distinct ones", where, palette, ", ".join(unknown))
    return classes
