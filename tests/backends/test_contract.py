"""The contract of every backend and precision: the labels of torch in f32, whatever computes."""

from __future__ import annotations

import logging
import sys
import threading
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
from onnx import helper
from torch import nn

from stream_seg.backends.engine import Result
from stream_seg.backends.onnxruntime import placed
from stream_seg.backends.registry import BACKENDS
from stream_seg.backends.tensorrt.backend import lack
from stream_seg.backends.torch import settled
from stream_seg.engines.open import open_engine
from stream_seg.errors import NetworkError
from stream_seg.network.network import Network, open_network
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.ops.resize import reduced
from stream_seg.stages.synthetic import Synthetic
from stream_seg.training.export import export_onnx
from stream_seg.types import Classes
from tests.support import small_networks as tiny

SIZES = ((48, 64), (32, 96))
AGREEMENT = {"f32": 0.999, "bf16": 0.99, "fp16": 0.99, "int8": 0.99, "fp8": 0.99}
NO_GPU = [pytest.mark.gpu, pytest.mark.skipif(lack() is not None, reason=f"tensorrt {lack()}")]
ALL = [
    ("openvino", "f32"), ("openvino", "bf16"), ("openvino", "int8"), ("onnxruntime", "f32"), ("onnxruntime", "int8"),
    ("torch", "f32"), ("torch", "bf16"),
    *(pytest.param("tensorrt", precision, marks=NO_GPU) for precision in ("f32", "fp16", "int8")),
]  # fmt: skip
EACH = ["openvino", "onnxruntime", "torch", pytest.param("tensorrt", marks=NO_GPU)]


class Small(nn.Module):
    """Two convolutions that tell blue, green and red pictures apart, with a margin as trained networks have one."""

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


def picture(size: tuple[int, int], *, seed: int) -> NDArray[np.uint8]:
    """Patches of 16 pixels in blue, green or red, with noise."""
    draw = np.random.default_rng(seed)
    patches = 60 + 120 * np.eye(3)[draw.integers(0, 3, (size[0] // 16, size[1] // 16))]
    whole = np.kron(patches, np.ones((16, 16, 1))) + draw.normal(0, 8, (*size, 3))
    return whole.clip(0, 255).astype(np.uint8)


@cache
def small(size: tuple[int, int], folder: Path) -> Network:
    path = folder / f"small{size[0]}.onnx"
    export_onnx(Small(), path, size=size, mean=(0.4, 0.4, 0.4), std=(0.25, 0.25, 0.25))
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as backends/openvino.py does
    import nncf

    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset([{"image": picture(size, seed=100 + i)[None]} for i in range(8)])
    int8 = nncf.quantize(onnx.load(path), calibration, subset_size=8)
    classes = Classes(("blue", "green", "red"), ((0, 0, 255), (0, 255, 0), (255, 0, 0)))
    return Network("small", classes, size, path.read_bytes(), int8.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


def labels(result: Result, size: tuple[int, int]) -> NDArray[np.uint8]:
    assert result.scores is not None
    return np.stack([upsampled_argmax(scores, size) for scores in result.scores])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("backend", "precision"), ALL)
def test_the_labels_are_those_of_torch(backend: str, precision: str, size: tuple[int, int], folder: Path) -> None:
    network = small(size, folder)
    images = np.stack([picture(size, seed=i) for i in range(5)])
    with torch.inference_mode():
        x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255
        truth = Small().eval()((x - 0.4) / 0.25).numpy()  # the module itself: no ONNX on this side
    truth = labels(Result(scores=truth), size)
    assert np.bincount(truth.ravel(), minlength=3).min() > truth.size / 10  # there is something to agree on
    with open_engine(network, backend=backend, precision=precision) as engine:
        assert engine.spec.info.precision == precision
        assert engine.spec.shapes == {"scores": (3, size[0] // 2, size[1] // 2)}
        whole = engine.infer(images)
        for i in range(len(images)):  # a picture does not change with its company, but for rounding
            alone = labels(engine.infer(images[i : i + 1]), size)[0]
            assert (alone == labels(whole, size)[i]).mean() >= AGREEMENT[precision]
        assert (labels(whole, size) == truth).mean() >= AGREEMENT[precision]


@pytest.mark.parametrize("backend", EACH)
def test_labels_on_request_are_those_of_the_scores(backend: str, folder: Path) -> None:
    network, size = small(SIZES[0], folder), SIZES[0]
    images = np.stack([picture(size, seed=i) for i in range(3)])
    opened = BACKENDS[backend].open_engine
    with opened(network, precision="f32", threads=1) as engine:
        truth = labels(engine.infer(images), size)
    with opened(network, precision="f32", threads=1, output="labels") as engine:
        assert engine.spec.shapes == {"labels": size}
        result = engine.infer(images)
    assert result.scores is None
    assert result.labels is not None
    assert result.labels.dtype == np.uint8
    assert (result.labels == truth).mean() > 0.999
    with pytest.raises(NetworkError, match="output 'instances': the network gives labels, scores"):
        opened(network, precision="f32", threads=1, output="instances")


@pytest.mark.parametrize(("backend", "precision"), [("openvino", "bf16"), ("torch", "bf16"), ("onnxruntime", "int8")])
def test_the_road_network_too(backend: str, precision: str, caplog: pytest.LogCaptureFixture) -> None:
    road = open_network("road")
    frame = next(iter(Synthetic(width=480, height=352)(iter(()))))
    images = reduced(frame.image, road.size)[None]
    with open_engine(road, backend="torch", precision="f32") as engine:
        truth = labels(engine.infer(images), road.size)
    caplog.set_level(logging.INFO, "stream_seg")  # a command before may have set it to WARNING
    caplog.clear()
    with open_engine(road, backend=backend, precision=precision) as engine:
        judged = [" % as f32, mIoU " in record.message for record in caplog.records]
        assert judged == [precision == "int8"], "what the gate said of the shipped int8 is told"
        assert (labels(engine.infer(images), road.size) == truth).mean() >= {"int8": 0.98}.get(precision, 0.99)


@pytest.mark.parametrize("backend", EACH)
def test_what_is_submitted_is_answered_in_order_while_the_caller_goes_on(backend: str, folder: Path) -> None:
    size = SIZES[0]
    images = [picture(size, seed=i)[None] for i in range(6)]
    engine = open_engine(small(size, folder), backend=backend, precision="f32")
    truth = [engine.infer(image).scores for image in images]
    pending = [engine.submit(image) for image in images]
    assert threading.active_count() > 1
    engine.close()  # waits for what was submitted
    for answer, expected in zip(pending, truth, strict=True):
        np.testing.assert_array_equal(answer.result(timeout=0).scores, expected)
    with pytest.raises(NetworkError, match="small: the engine is closed"):
        engine.submit(images[0])


@pytest.mark.parametrize("backend", EACH)
def test_a_refusal_comes_with_the_result(backend: str, folder: Path) -> None:
    with open_engine(small(SIZES[0], folder), backend=backend) as engine:
        pending = engine.submit(np.zeros((1, 8, 8, 3), np.uint8))
        with pytest.raises(NetworkError, match=r"uint8 images of shape \(N, 48, 64, 3\), got uint8 \(1, 8, 8, 3\)"):
            pending.result(timeout=30)


@pytest.mark.parametrize("backend", EACH)
def test_two_engines_in_two_threads_and_once_more(backend: str, folder: Path) -> None:
    images = {size: picture(size, seed=1)[None] for size in SIZES}

    def opened(size: tuple[int, int]) -> Any:
        with open_engine(small(size, folder), backend=backend, precision="f32") as engine:
            return [engine.infer(images[size]).scores for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        first, second = (list(pool.map(opened, SIZES)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", EACH)
def test_a_thousand_inferences_leave_no_memory_behind(backend: str, tmp_path: Path) -> None:
    path = tiny.write(tmp_path, tiny.network(outputs={"out": 3}, size=(96, 128)), {"classes": tiny.CLASSES})
    process, image = psutil.Process(), tiny.picture((96, 128))[None]
    with open_engine(open_network(path), backend=backend) as engine:
        for _ in range(200):
            engine.infer(image)
        before = process.memory_info().rss
        for _ in range(1000):
            engine.infer(image)
        # each picture is 37 kB and each answer: one that stayed would be 37 MB in all
        assert process.memory_info().rss - before < 8e6


def test_torch_refuses_a_resizing_that_it_would_compute_otherwise(folder: Path) -> None:
    model = onnx.load_from_string(small(SIZES[0], folder).f32)
    scores = next(node for node in model.graph.node if "scores" in node.output)
    scores.output[0] = "before"
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    model.graph.initializer.append(scales)
    model.graph.node.append(helper.make_node("Resize", ["before", "", "scales"], ["scores"], "larger", mode="nearest"))
    with pytest.raises(NetworkError, match=r"small: torch has no Resize of mode nearest half_pixel \(larger\)"):
        open_engine(replace(small(SIZES[0], folder), f32=model.SerializeToString()), backend="torch")


def test_openvino_keeps_what_it_compiled(folder: Path, tmp_path: Path) -> None:
    from stream_seg.backends.openvino import open_engine as opened

    network, kept = small(SIZES[0], folder), tmp_path / "compiled"
    said = []
    for _ in range(2):
        with opened(network, precision="f32", threads=1, cache=kept) as engine:
            said.append(engine.infer(picture(SIZES[0], seed=1)[None]).scores)
        assert len(list(kept.rglob("*.blob"))) == 1
    np.testing.assert_array_equal(*said)


def test_devices_and_precisions_that_are_not_here_are_refused() -> None:
    cpu = ["CPUExecutionProvider"]
    assert placed("auto", available=cpu) == ("cpu",)
    assert placed("auto", available=["CUDAExecutionProvider", *cpu]) == ("cuda", "cpu")
    with pytest.raises(NetworkError, match="device 'cuda' is not in this package; here: auto, cpu"):
        placed("cuda", available=cpu)
    assert (settled("auto", device="cuda"), settled("auto", device="cpu")) == ("fp16", "f32")
    with pytest.raises(NetworkError, match="torch: precision int8 is not to be had on cpu; here: f32, bf16"):
        settled("int8", device="cpu")
