"""From trained weights to what is shipped: a portable ONNX, its int8 form, and the side-car that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream_seg.arrays import Image
from stream_seg.backends.quantise import quantised
from stream_seg.classes import Classes
from stream_seg.stages.segment import reduced
from stream_seg.training.recipe import Recipe


class Portable(nn.Module):
    """A network with its per-pixel work around it, in operators that every backend builds.

    Input: uint8 (N, H, W, 3) BGR. Output: float32 scores (N, C, h, w) and uint8 labels (N, H, W).
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, net: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        # (x / 255 - mean) / std as one multiplication and one addition
        self.register_buffer("gain", (1 / (255 * torch.tensor(std))).reshape(1, 3, 1, 1))
        self.register_buffer("offset", (-torch.tensor(mean) / torch.tensor(std)).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # TensorRT takes uint8 only at the input: cast first, then transpose
        scores = self.net(image.float().permute(0, 3, 1, 2) * self.gain + self.offset)
        full = F.interpolate(scores, size=image.shape[1:3], mode="bilinear", align_corners=False)
        return scores, full.argmax(1).to(torch.uint8)


def export(recipe: Recipe, net: nn.Module, classes: Classes, *, calibration: Sequence[Image], out: Path) -> None:
    """Write OUT/NAME.onnx, OUT/NAME_int8.onnx (calibrated on pictures of any size) and the side-car OUT/NAME.json."""
    path = out / f"{recipe.network}.onnx"
    export_onnx(net, path, size=recipe.size, mean=recipe.mean, std=recipe.std)
    pictures = [reduced(image, recipe.size) for image in calibration]
    int8 = quantised(path.read_bytes(), pictures, name=recipe.network)
    path.with_stem(f"{path.stem}_int8").write_bytes(int8)
    describe(path, classes, size=recipe.size, mean=recipe.mean, std=recipe.std)


def describe(
    path: Path, classes: Classes, *, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> None:
    """Write the side-car of an exported ONNX, PATH with the ending .json; the network is called as the file is."""
    said = {
        "name": path.stem,
        "size": size,
        "mean_bgr": mean,
        "std_bgr": std,
        "classes": classes.names,
        "palette": classes.colours,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def export_onnx(
    net: nn.Module, path: Path, *, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> None:
    """Write `net` as a portable ONNX: any batch, pictures of `size` = (height, width)."""
    portable = Portable(net.eval(), mean=mean, std=std).eval()
    torch.onnx.export(
        portable,
        (torch.zeros(2, *size, 3, dtype=torch.uint8),),
        path,
        input_names=["image"],
        output_names=["scores", "labels"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    forget_origin(path)


def forget_origin(path: Path) -> None:
    """Take out of an ONNX what torch notes of every node's origin: stack traces with the paths of this machine."""
    import onnx

    model = onnx.load(path)
    for item in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(model, path)
