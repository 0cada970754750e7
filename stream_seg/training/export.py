"""Export a trained network: a portable ONNX, its int8 form, and the side-car that describes both."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stream_seg.backends.choose import available_backends, open_backend, pick_backend
from stream_seg.backends.registry import BACKENDS
from stream_seg.datasets.labelled import Pairs
from stream_seg.engines.accuracy_gate import Limits, measure_accuracy
from stream_seg.engines.cache_entry import hash_bytes
from stream_seg.engines.calibration import HELD_BACK, CalibrationSet, Sample, quantize
from stream_seg.files.writing import atomic_file, map_write_errors, refuse_existing, replace_file
from stream_seg.network.network import Network, bias_network
from stream_seg.ops.resize import resize_image
from stream_seg.types import Classes
from stream_seg.zoo.weights.input_spec import InputSpec, Normalise

LOG = logging.getLogger(__name__)
IMAGE_COUNT = 62
"""Images that the int8 form is calibrated on, at most."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class NetworkInfo:
    """The content of the side-car. `size` is the input's (height, width); `prefer` is added to the scores of classes,
    by name."""

    name: str
    size: tuple[int, int]
    spec: InputSpec
    classes: Classes
    prefer: Mapping[str, float] = field(default_factory=dict)


class PortableNetwork(nn.Module):
    """A network with normalisation, in operators that every backend can build.

    Input: uint8 (N, H, W, 3) BGR. Output: float32 scores (N, C, h, w).
    """

    def __init__(self, net: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.net, self.prepare = net, Normalise(spec)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.net(self.prepare(image))
        return scores


def export_network(
    net: nn.Module,
    path: Path,
    info: NetworkInfo,
    *,
    images: CalibrationSet | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write NAME.onnx, NAME.json and, with `images`, NAME_int8.onnx. Return the paths of the files written.

    The int8 form is compared with float32 on `images`; NAME.json holds the report under `int8`. Beyond the limits of
    the accuracy gate no int8 form is written, which is logged. Raises OutputError, for files that exist as well unless
    `overwrite` is set.
    """
    spec, int8, sidecar = info.spec, path.with_stem(f"{path.stem}_int8"), path.with_suffix(".json")
    for file in (path, sidecar, int8):
        refuse_existing(file, overwrite=overwrite)
    export_onnx(net, path, size=info.size, spec=spec, overwrite=overwrite)
    with map_write_errors(path):
        for stale in (sidecar, int8) if overwrite else ():  # of a network that was here before
            stale.unlink(missing_ok=True)
    f32 = Network(info.name, info.classes, info.size, path.read_bytes())
    if info.prefer:
        f32 = bias_network(f32, info.prefer, where="prefer")
        replace_file(path, f32.f32)
    content: dict[str, Any] = {
        "name": info.name,
        "size": info.size,
        "mean_bgr": spec.in_bgr(spec.mean),
        "std_bgr": spec.in_bgr(spec.std),
        "colour": spec.colour,
        "scale": spec.scale,
        "classes": info.classes.names,
        "palette": info.classes.colours,
        **({"prefer": dict(info.prefer)} if info.prefer else {}),
        "sha256": hash_bytes(f32.f32),
    }
    if images is not None:
        onnx, content["int8"] = _quantize(f32, images)
        if onnx is not None:
            replace_file(int8, onnx, overwrite=overwrite)
    replace_file(sidecar, f"{json.dumps(content, indent=2)}\n".encode(), overwrite=overwrite)
    return [file for file in (path, int8, sidecar) if file.exists()]


def _quantize(network: Network, images: CalibrationSet) -> tuple[bytes | None, dict[str, Any]]:
    """Return the int8 form, or None if the accuracy gate refuses it, and its entry for the side-car.

    The form is compared on the CPU, which it is made for; TensorRT's engines are compared where they are built.
    """
    int8 = quantize(network.f32, [sample.image for sample in images.fit], name=network.name)
    network = replace(network, int8=int8)
    on_cpu = [name for name, entry in BACKENDS.items() if "int8" in entry.precisions and not entry.needs_gpu]
    backend, _ = pick_backend("auto", available=[name for name in available_backends() if name in on_cpu])
    with (
        open_backend(network, backend, precision="f32") as f32,
        open_backend(network, backend, precision="int8") as lower,
    ):
        report = measure_accuracy(f32, lower, images, limits=Limits())
    if report["refused"]:
        LOG.warning("%s: no int8 form is written: %s", network.name, report["refused"])
        return None, {"sha256": None, "report": report}
    return int8, {"sha256": hash_bytes(int8), "report": report}


def export_onnx(net: nn.Module, path: Path, *, size: tuple[int, int], spec: InputSpec, overwrite: bool = False) -> None:
    """Write `net` as a portable ONNX for any batch of images of `size` = (height, width). Raises OutputError."""
    with atomic_file(path, overwrite=overwrite) as partial, map_write_errors(path):
        torch.onnx.export(
            PortableNetwork(net, spec).eval(),
            (torch.zeros(2, *size, 3, dtype=torch.uint8),),
            partial,
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
        strip_metadata(partial)


def strip_metadata(path: Path) -> None:
    """Remove torch's stack traces from the nodes of an ONNX: they contain paths of this machine."""
    import onnx

    model = onnx.load(path)
    for item in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(model, path)


def calibration_set(
    pairs: Pairs, size: tuple[int, int], *, source: str, held_back: Pairs | None = None
) -> CalibrationSet:
    """Choose up to IMAGE_COUNT evenly spaced `pairs`, resized to `size` = (height, width), with their labels.

    Accuracy is compared on `held_back`; without it on the pairs between, and with too few of those on every fourth,
    which is then left out of the calibration. `source` names the images in reports.
    """
    places = subsample(range(len(pairs)), 2 * IMAGE_COUNT)
    fit: Sequence[int]
    compared: Sequence[int]
    if held_back is not None:
        fit, compared = subsample(range(len(pairs)), IMAGE_COUNT), range(len(held_back))
    elif len(places) > IMAGE_COUNT:
        fit, compared = places[::2], places[1::2]
    else:
        fit = [place for place in places if place % HELD_BACK != HELD_BACK - 1]
        compared = places[HELD_BACK - 1 :: HELD_BACK] or places  # of up to three images none is left out

    def sample(pairs: Pairs, place: int) -> Sample:
        return Sample(f"image {place}", resize_image(pairs.images[place], size), pairs.labels[place])

    unseen = tuple(sample(pairs if held_back is None else held_back, place) for place in compared)
    return CalibrationSet(source, tuple(sample(pairs, place) for place in fit), unseen)


def subsample(items: Sequence[Item], limit: int) -> Sequence[Item]:
    """Return every n-th item from the first on, at most `limit` of them."""
    return items[:: max(1, -(-len(items) // limit))]
