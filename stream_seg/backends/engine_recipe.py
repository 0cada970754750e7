"""What to build, as `engines/*.yaml` and the options of `stream-seg engines build` say it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.backends.calibration import PICTURES
from stream_seg.backends.quantise import Settings
from stream_seg.sidecar import Size


class EngineRecipe(BaseModel):
    """One engine. Paths are as they are typed: seen from the working directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Annotated[str, Field(description="a name, or the path of an .onnx or side-car")]
    backend: Annotated[str, Field(description="tensorrt, openvino, onnxruntime, torch; auto: the first that works")] = (
        "auto"
    )
    precision: Annotated[str, Field(description="int8, fp8, fp16, bf16, f32; auto: the lowest that can be had")] = (
        "auto"
    )
    size: Annotated[Size | None, Field(description="[height, width] of the input")] = None
    batch: Annotated[int, Field(ge=1, le=256, description="largest batch of a TensorRT engine")] = 8
    compute_capability: Annotated[
        str | None, Field(pattern=r"^\d+\.\d$", description="of a GPU that is not here, such as 8.9")
    ] = None
    calibrate: Annotated[str | None, Field(description="a folder of pictures, or a video")] = None
    labels: Annotated[Path | None, Field(description="a folder of label maps for those pictures")] = None
    pictures: Annotated[int, Field(ge=4, le=10_000, description="how many are taken, evenly")] = PICTURES
    miou_loss: Annotated[float, Field(ge=0, le=100, description="points that may be lost where there are labels")] = 0.5
    agreement: Annotated[float, Field(ge=0, le=100, description="percent of equal labels that is needed elsewhere")] = (
        99.0
    )
    quantise: Settings = Settings()
