"""Engine recipes: what `stream-seg engines build` builds, as options or a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.backends.engine import QUANTIZED
from stream_seg.engines.accuracy_gate import Limits
from stream_seg.engines.calibration import IMAGE_COUNT, QuantizeSettings
from stream_seg.errors import ConfigError
from stream_seg.network.sidecar import Size


class EngineRecipe(BaseModel):
    """An engine to build. Paths are relative to the working directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str  # a name, or the path of an .onnx or side-car
    backend: str = "auto"  # the first that works
    precision: str = "auto"  # the lowest available
    size: Size | None = None  # [height, width] of the input
    # of a GPU that is not in this machine, such as 8.9
    compute_capability: Annotated[str | None, Field(pattern=r"^\d+\.\d$")] = None
    calibrate: str | None = None  # a folder of images, or a video
    labels: Path | None = None  # a folder of label maps for those images
    images: Annotated[int, Field(ge=4, le=10_000)] = IMAGE_COUNT  # number of images, evenly spaced
    miou_loss: Annotated[float, Field(ge=0, le=100)] = 0.5  # accepted loss in mIoU points, with labels
    agreement: Annotated[float, Field(ge=0, le=100)] = 99.0  # required % of labels equal to f32, without labels
    quantize: QuantizeSettings = QuantizeSettings()

    @property
    def limits(self) -> Limits:
        """Limits of the accuracy gate."""
        return Limits(self.miou_loss, self.agreement / 100)

    def refuse_unused(self) -> None:
        """Raise ConfigError for a key without effect beside the others."""
        used = self.model_fields_set - {"network", "backend", "precision", "size", "compute_capability"}
        unused: list[tuple[tuple[str, ...], str]] = []
        if self.precision == "f32":
            everything = ("calibrate", "labels", "images", "miou_loss", "agreement", "quantize")
            unused.append((everything, "no effect with precision f32, which is the reference"))
        if self.precision not in ("auto", *QUANTIZED):
            unused.append((("quantize",), f"no effect with precision {self.precision}, which is not quantized"))
        if self.calibrate is None:
            unused.append((("labels",), "needs calibrate, the images that the labels are for"))
            unused.append((("images", "quantize"), "needs calibrate, a folder of images or a video"))
        if self.labels is None:
            unused.append((("miou_loss",), "needs labels; without them, `agreement` is the limit"))
        else:
            unused.append((("agreement",), "no effect with labels, where `miou_loss` is the limit; remove it"))
        for keys, reason in unused:
            for key in keys:
                if key in used and getattr(self, key) is not None:
                    raise ConfigError(f"{key}: {reason}")
