"""From trained weights to what is shipped: a portable ONNX, its int8 form, and the side-car that says what they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.backends.registry import chosen, installed, open_backend
from stream_seg.engines.accuracy_gate import Limits
from stream_seg.engines.cache_entry import digest
from stream_seg.engines.calibration import CalibrationSet
from stream_seg.engines.compare import report_of
from stream_seg.engines.quantize import quantised
from stream_seg.files import final_file, replace_file, writing
from stream_seg.network.network import Network, preferring
from stream_seg.types import Classes
from stream_seg.zoo.weights.normalise import Colour, InputSpec, Normalise, Three

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Meaning:
    """What an ONNX cannot say itself and its side-car does. `size` is the input's (height, width); `prefer` is added to
    the scores of classes, by name."""

    name: str
    size: tuple[int, int]
    spec: InputSpec
    classes: Classes
    prefer: Mapping[str, float] = field(default_factory=dict)


class Portable(nn.Module):
    """A network with its per-pixel work around it, in operators that every backend builds.

    Input: uint8 (N, H, W, 3) BGR. Output: float32 scores (N, C, h, w) and uint8 labels (N, H, W).
    """

    def __init__(self, net: nn.Module, *, mean: Three, std: Three, colour: Colour = "bgr", scale: float = 255) -> None:
        super().__init__()
        self.net = net
        self.prepare = Normalise(InputSpec(tuple(mean), tuple(std), colour, scale))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.net(self.prepare(image))
        full = F.interpolate(scores, size=image.shape[1:3], mode="bilinear", align_corners=False)
        return scores, full.argmax(1).to(torch.uint8)


def export(
    net: nn.Module, path: Path, meaning: Meaning, *, frames: CalibrationSet | None = None, limits: Limits | None = None
) -> list[Path]:
    """Write NAME.onnx, with pictures to calibrate on NAME_int8.onnx, and NAME.json; returns what was written.

    The int8 form is compared with float32 on `frames`, at `meaning.size`; the report stands in NAME.json under `int8`.
    Past the `limits` no int8 form is written, which is logged. Raises OutputError.
    """
    spec, int8, sidecar = meaning.spec, path.with_stem(f"{path.stem}_int8"), path.with_suffix(".json")
    export_onnx(net, path, size=meaning.size, mean=spec.mean, std=spec.std, colour=spec.colour, scale=spec.scale)
    with writing(path):
        for stale in (sidecar, int8):  # of another network
            stale.unlink(missing_ok=True)
    f32 = Network(meaning.name, meaning.classes, meaning.size, path.read_bytes())
    if meaning.prefer:
        f32 = preferring(f32, meaning.prefer, where="prefer")
        replace_file(path, f32.f32)
    said: dict[str, Any] = {
        "name": meaning.name,
        "size": meaning.size,
        "mean_bgr": spec.in_bgr(spec.mean),
        "std_bgr": spec.in_bgr(spec.std),
        "colour": spec.colour,
        "scale": spec.scale,
        "classes": meaning.classes.names,
        "palette": meaning.classes.colours,
        **({"prefer": dict(meaning.prefer)} if meaning.prefer else {}),
        "sha256": digest(f32.f32),
    }
    if frames is not None:
        form, said["int8"] = int8_form(f32, frames, limits or Limits())
        if form is not None:
            replace_file(int8, form)
    replace_file(sidecar, f"{json.dumps(said, indent=2)}\n".encode())
    return [file for file in (path, int8, sidecar) if file.exists()]


def int8_form(network: Network, frames: CalibrationSet, limits: Limits) -> tuple[bytes | None, dict[str, Any]]:
    """`network` quantised on `frames.fit`, None where the accuracy gate refuses it; and what the side-car says of it.

    It is compared on the CPU: it is for one, and TensorRT's builds are compared where they are built.
    """
    int8 = quantised(network.f32, [sample.image for sample in frames.fit], name=network.name)
    network = replace(network, int8=int8)
    backend, _ = chosen("auto", present=[name for name in installed() if name in ("openvino", "onnxruntime")])
    with (
        open_backend(network, backend, precision="f32") as f32,
        open_backend(network, backend, precision="int8") as lower,
    ):
        report = report_of(f32, lower, frames, limits=limits)
    if report["refused"]:
        log.warning("%s: no int8 form is written: %s", network.name, report["refused"])
    form = None if report["refused"] else int8
    return form, {"sha256": None if form is None else digest(form), "report": report}


def export_onnx(
    net: nn.Module,
    path: Path,
    *,
    size: tuple[int, int],
    mean: Three,
    std: Three,
    colour: Colour = "bgr",
    scale: float = 255,
) -> None:
    """Write `net` as a portable ONNX: any batch, pictures of `size` = (height, width). Raises OutputError."""
    portable = Portable(net.eval(), mean=mean, std=std, colour=colour, scale=scale).eval()
    with final_file(path) as partial, writing(path):
        torch.onnx.export(
            portable,
            (torch.zeros(2, *size, 3, dtype=torch.uint8),),
            partial,
            input_names=["image"],
            output_names=["scores", "labels"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
        forget_origin(partial)


def forget_origin(path: Path) -> None:
    """Take out of an ONNX what torch notes of every node's origin: stack traces with the paths of this machine."""
    import onnx

    model = onnx.load(path)
    for item in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(model, path)
