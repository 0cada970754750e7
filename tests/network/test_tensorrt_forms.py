"""Every form of output that a network of one's own may have is built by TensorRT, for a GPU that is not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from stream_seg.backends.tensorrt.backend import compile_network
from stream_seg.network.network import open_network
from tests.network import test_label_maps, test_masks
from tests.support import small_networks

pytest.importorskip("tensorrt_rtx")
MASKS = ["logits", "Sigmoid", "Resize", "Squeeze", "Reshape", "1 - x", "Softmax of two", "threshold inside"]
LABEL_MAPS = [
    *((kind, "(N, 1, H, W)") for kind in ("FLOAT", "FLOAT16", "INT32", "INT64")),
    *(("INT64", shape) for shape in test_label_maps.SHAPES),
]


def build(folder: Path, model: Any, classes: list[str]) -> None:
    network = open_network(small_networks.write_network(folder, model, {"classes": classes}))
    for precision in ("f32", "fp16"):
        assert compile_network(network, precision, compute_capability="8.9")


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_built(name: str, tmp_path: Path) -> None:
    build(tmp_path, test_masks.make_model(test_masks.CHAINS[name][0]), ["other", "object"])


@pytest.mark.parametrize(("kind", "shape"), LABEL_MAPS)
def test_label_maps_are_built(kind: str, shape: str, tmp_path: Path) -> None:
    build(tmp_path, test_label_maps.make_model(kind, shape), small_networks.CLASSES)


def test_scores_without_a_batch(tmp_path: Path) -> None:
    model = small_networks.extend(small_networks.make_model(outputs={"scores": 3}, batch=1), ("Squeeze", [0]))
    build(tmp_path, model, small_networks.CLASSES)


def test_truth_values(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"scores": 1}, batch=1)
    model = small_networks.extend(model, ("Greater", 0.5), kind=TensorProto.BOOL)
    build(tmp_path, model, ["no", "yes"])
