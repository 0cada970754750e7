"""A training recipe as its YAML says it, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """What is trained, on what, how long. Sizes are (height, width) in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Annotated[str, Field(description="a name of stream_seg.zoo.BUILDERS")]
    data: Annotated[Path, Field(description="holds SPLIT/ and SPLITannot/")]
    split: str = "train"
    size: Annotated[tuple[int, int], Field(description="input of the exported network")] = (352, 480)
    mean: Annotated[tuple[float, float, float], Field(description="blue green red, 0 to 1")]
    std: Annotated[tuple[float, float, float], Field(description="blue green red")]
    crop: Annotated[tuple[int, int], Field(description="what a step sees of a picture")] = (288, 384)
    sky: Annotated[int | None, Field(ge=0, description="label that gets another weather half of the time")] = None
    start: Annotated[Path | None, Field(description="checkpoint whose averaged weights are the beginning")] = None
    scale: Annotated[tuple[float, float], Field(description="smallest and largest enlargement")] = (0.5, 2.0)
    batch: Annotated[int, Field(ge=1)] = 8
    steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    schedule: Annotated[
        Literal["poly", "hold"],
        Field(description="poly: DeepLab's decay; hold: the full learning rate, then down to 0 in the last third"),
    ] = "poly"
    warm_up: Annotated[int, Field(ge=1, description="steps until the full learning rate")] = 300
    balance: Annotated[
        float, Field(ge=0, le=1, description="a class weighs one over this power of its share of the pixels")
    ] = 0.5
    ema: Annotated[float, Field(ge=0, lt=1, description="what the average of the weights keeps per step")] = 0.998
    auxiliary: Annotated[float, Field(ge=0, description="weight of the auxiliary loss")] = 0.4
    seed: int = 1
