"""Every backend and precision computes the labels of torch in f32."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from stream_seg.backends.choose import find_missing
from stream_seg.backends.engine import Result
from stream_seg.backends.registry import BACKENDS
from stream_seg.engines.open import open_engine
from stream_seg.errors import NetworkError
from stream_seg.network.network import Network, open_network
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.ops.resize import resize_image
from stream_seg.stages.synthetic import Synthetic
from stream_seg.training.export import export_onnx
from stream_seg.types import Classes
from stream_seg.zoo.weights.input_spec import InputSpec
from tests.support import small_networks

SIZES = ((48, 64), (32, 96))
AGREEMENT = {"f32": 0.999, "bf16": 0.99, "fp16": 0.99, "int8": 0.99, "fp8": 0.99}
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_missing("tensorrt") is not None, reason=f"tensorrt: {find_missing('tensorrt')}"),
]
ALL = [
    ("openvino", "f32"), ("openvino", "bf16"), ("openvino", "int8"), ("onnxruntime", "f32"), ("onnxruntime", "int8"),
    ("torch", "f32"), ("torch", "bf16"),
    *(pytest.param("tensorrt", precision, marks=NEEDS_GPU) for precision in ("f32", "fp16", "int8")),
]  # fmt: skip
EACH = ["openvino", "onnxruntime", "torch", pytest.param("tensorrt", marks=NEEDS_GPU)]


class ColourNet(nn.Module):
    """Two convolutions that tell blue, green and red apart, with a margin like that of trained networks."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 3, 1),
        )
        with torch.no_grad():
            for layer in self.layers[:3:2]:
                weight = 0.05 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(3))
                for channel in range(16):
                    weight[channel, channel % 3, 1, 1] += 1
                layer.weight.copy_(weight)
            self.layers[4].weight.copy_(torch.eye(3).repeat(1, 6)[:, :16, None, None] * 0.2)
            for layer in self.layers[::2]:
                layer.bias.zero_()

    def forward(self, x: Any) -> Any:
        return self.layers(x)


def make_image(size: tuple[int, int], *, seed: int) -> NDArray[np.uint8]:
    """Return patches of 16 pixels in blue, green or red, with noise."""
    rng = np.random.default_rng(seed)
    patches = 60 + 120 * np.eye(3)[rng.integers(0, 3, (size[0] // 16, size[1] // 16))]
    image = np.kron(patches, np.ones((16, 16, 1))) + rng.normal(0, 8, (*size, 3))
    return image.clip(0, 255).astype(np.uint8)


@cache
def make_network(size: tuple[int, int], folder: Path) -> Network:
    path = folder / f"small{size[0]}.onnx"
    export_onnx(ColourNet(), path, size=size, spec=InputSpec((0.4,) * 3, (0.25,) * 3))
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as backends/openvino.py does
    import nncf

    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset([{"image": make_image(size, seed=100 + i)[None]} for i in range(8)])
    int8 = nncf.quantize(onnx.load(path), calibration, subset_size=8)
    classes = Classes(("blue", "green", "red"), ((0, 0, 255), (0, 255, 0), (255, 0, 0)))
    return Network("small", classes, size, path.read_bytes(), int8.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


def labels_of(result: Result, size: tuple[int, int]) -> NDArray[np.uint8]:
    assert result.scores is not None
    return np.stack([upsampled_argmax(scores, size) for scores in result.scores])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("backend", "precision"), ALL)
def test_the_labels_are_those_of_torch(backend: str, precision: str, size: tuple[int, int], folder: Path) -> None:
    network = make_network(size, folder)
    images = np.stack([make_image(size, seed=i) for i in range(5)])
    with torch.inference_mode():
        x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255
        scores = ColourNet().eval()((x - 0.4) / 0.25).numpy()  # the module itself, without ONNX
    expected = labels_of(Result(scores=scores), size)
    assert np.bincount(expected.ravel(), minlength=3).min() > expected.size / 10  # all classes are there
    with open_engine(network, backend=backend, precision=precision) as engine:
        assert engine.spec.info.precision == precision
        labels = labels_of(engine.infer(images), size)
        for i in range(len(images)):  # but for rounding, the result does not depend on the batch
            alone = labels_of(engine.infer(images[i : i + 1]), size)[0]
            assert (alone == labels[i]).mean() >= AGREEMENT[precision]
        assert (labels == expected).mean() >= AGREEMENT[precision]


@pytest.mark.parametrize("backend", EACH)
def test_labels_alone_are_those_of_the_scores(backend: str, tmp_path: Path) -> None:
    model = small_networks.extend(
        small_networks.make_model(outputs={"out": 3}), ("ArgMax", {"axis": 1}), kind=TensorProto.INT64
    )
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    images = np.stack([small_networks.make_image(seed=i) for i in range(3)])
    expected = np.stack([small_networks.expected_scores(image, 3).argmax(0) for image in images])
    with BACKENDS[backend].create_engine(open_network(path), precision="f32", threads=1) as engine:
        result = engine.infer(images)
    assert result.scores is None
    assert result.labels is not None
    assert result.labels.dtype == np.uint8
    assert (result.labels == expected).mean() > 0.999


@pytest.mark.parametrize(("backend", "precision"), [("openvino", "bf16"), ("torch", "bf16"), ("onnxruntime", "int8")])
def test_the_labels_of_the_road_network(backend: str, precision: str, caplog: pytest.LogCaptureFixture) -> None:
    road = open_network("road")
    frame = next(iter(Synthetic(width=480, height=352)(iter(()))))
    images = resize_image(frame.image, road.size)[None]
    with open_engine(road, backend="torch", precision="f32") as engine:
        expected = labels_of(engine.infer(images), road.size)
    caplog.set_level(logging.INFO, "stream_seg")  # an earlier command may have set it to WARNING
    caplog.clear()
    with open_engine(road, backend=backend, precision=precision) as engine:
        logged = [" % as f32, mIoU " in record.message for record in caplog.records]
        assert logged == [precision == "int8"], "the accuracy of the shipped int8 form is logged"
        labels = labels_of(engine.infer(images), road.size)
    assert (labels == expected).mean() >= {"int8": 0.98}.get(precision, 0.99)


@pytest.mark.parametrize("backend", EACH)
def test_two_engines_in_two_threads_repeatedly(backend: str, folder: Path) -> None:
    images = {size: make_image(size, seed=1)[None] for size in SIZES}

    def infer(size: tuple[int, int]) -> Any:
        with open_engine(make_network(size, folder), backend=backend, precision="f32") as engine:
            return [engine.infer(images[size]).scores for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        first, second = (list(pool.map(infer, SIZES)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", EACH)
def test_inference_does_not_leak_memory(backend: str, tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}, size=(96, 128)), {"classes": small_networks.CLASSES}
    )
    process, image = psutil.Process(), small_networks.make_image((96, 128))[None]
    with open_engine(open_network(path), backend=backend) as engine:
        for _ in range(200):
            engine.infer(image)
        before = process.memory_info().rss
        for _ in range(1000):
            engine.infer(image)
        # an image is 37 kB, a result too: if one leaked, it would be 37 MB in all
        assert process.memory_info().rss - before < 8e6


def test_torch_refuses_a_resize_that_it_computes_differently(folder: Path) -> None:
    model = onnx.load_from_string(make_network(SIZES[0], folder).f32)
    scores = next(node for node in model.graph.node if "scores" in node.output)
    scores.output[0] = "before"
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    model.graph.initializer.append(scales)
    model.graph.node.append(helper.make_node("Resize", ["before", "", "scales"], ["scores"], "larger", mode="nearest"))
    with pytest.raises(NetworkError, match=r"small: torch has no Resize of mode nearest half_pixel \(larger\)"):
        open_engine(replace(make_network(SIZES[0], folder), f32=model.SerializeToString()), backend="torch")
