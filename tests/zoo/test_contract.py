"""Contract tests of every network of BUILDERS, with random weights and batch statistics of random images."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from stream_seg import zoo
from stream_seg.backends.tensorrt.backend import build_plan, list_compute_capabilities
from stream_seg.errors import NetworkError
from stream_seg.frame import Frame
from stream_seg.network.shipped import NETWORKS
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.stages.base import Frames
from stream_seg.stages.overlay import Overlay
from stream_seg.stages.segment import Segment
from stream_seg.stages.synthetic import Synthetic
from stream_seg.training.export import PortableNetwork, export_onnx
from stream_seg.types import Labels
from stream_seg.zoo import BUILDERS
from stream_seg.zoo.weights.input_spec import InputSpec
from tests.support.fake_stages import make_node, run_graph

# the tests of one network run on one worker of pytest-xdist, those of different networks on any
NAMES = [pytest.param(name, marks=pytest.mark.xdist_group(f"zoo {name}")) for name in BUILDERS]
pytestmark = pytest.mark.timeout(600)  # on a busy machine an export of 101 layers takes minutes

# small sizes; some networks have a least size
EXPORTED = {"deconvnet": (193, 224), "unet": (112, 128), "deeplab_v1_crf": (128, 192), "deeplab_v2_crf": (128, 192)}
ODD = {"deconvnet": (193, 199), "unet": (109, 123)}
# in a few of a million windows rounding decides where the maximum is, which changes much: one image of three may differ
IMAGES = {"deconvnet": 3, "segnet": 3}
# one of each kind: strides and skips, indices, crops, the CRF, depthwise convolutions; others are built for one GPU
FOR_EVERY_GPU = {"road", "segnet", "unet", "deeplab_v1_crf", "lraspp_mobilenet"}
TOO_SMALL = {"deconvnet": (192, 224), "unet": (107, 128)}
SPEC = InputSpec((0.43, 0.42, 0.41), (0.31, 0.31, 0.31))
UNPORTABLE = {"NonZero", "If", "Loop", "Scan", "MaxUnpool", "RoiAlign", "NonMaxSuppression"}

Images = NDArray[np.uint8]


def seeded_network(name: str, classes: int) -> nn.Module:
    torch.manual_seed(1)
    return zoo.build_network(name, classes).eval()


def noise_image(height: int, width: int, *, seed: int = 0, count: int = 1) -> Tensor:
    """Return coarse and fine noise, (N, 3, H, W), about normalised."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=rng)
    return F.interpolate(coarse, size=(height, width), mode="bicubic") + 0.3 * torch.randn(
        count, 3, height, width, generator=rng
    )


def first_convolution(net: nn.Module) -> nn.Conv2d:
    return next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("name", BUILDERS)
def test_the_parameter_count_equals_the_sources(name: str) -> None:
    with torch.device("meta"):
        net = seeded_network(name, BUILDERS[name].classes)
    assert sum(p.numel() for p in net.parameters()) == BUILDERS[name].parameters


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_an_odd_size_and_a_gradient_at_the_first_layer(name: str) -> None:
    net = seeded_network(name, 2).requires_grad_(False)
    weight = first_convolution(net).weight.requires_grad_()
    height, width = ODD.get(name, (65, 97))
    scores = net(noise_image(height, width))
    stride = BUILDERS[name].stride
    assert scores.shape == (1, 2, math.ceil(height / stride), math.ceil(width / stride))
    assert scores.isfinite().all()
    scores[:, 0].mean().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", TOO_SMALL)
def test_an_image_that_is_too_small_is_refused(name: str) -> None:
    with torch.device("meta"):
        net = seeded_network(name, 2)
        with pytest.raises(NetworkError, match="too small"):
            net(torch.zeros(1, 3, *TOO_SMALL[name]))


@dataclass(frozen=True)
class Exported:
    """A network of 21 classes as ONNX, images (N, H, W, 3), and torch's scores of them."""

    name: str
    path: Path
    images: Images
    scores: NDArray[np.float32]

    @property
    def labels(self) -> Labels:
        """Labels uint8 (N, H, W) of the scores."""
        return self.labels_of(self.scores)

    def labels_of(self, scores: NDArray[np.float32]) -> Labels:
        """Return labels uint8 (N, H, W), at the size of the images."""
        return np.stack([upsampled_argmax(each, self.images.shape[1:3]) for each in scores])

    def assert_agrees(self, scores: NDArray[np.float32]) -> None:
        """Compare most images within 1e-3, or within 1e-3 of the scores' deviation if that is below 1."""
        assert scores.shape == self.scores.shape
        error = np.abs(scores - self.scores).max(axis=(1, 2, 3))
        same = (self.labels_of(scores) == self.labels).mean(axis=(1, 2))
        good = (error < 1e-3 * min(1, self.scores.std())) & (same > 0.999)
        assert same.min() > 0.95, f"{self.name}: share of equal labels {same}"
        assert good.mean() > 0.5, f"{self.name}: score error {error}, share of equal labels {same}"


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    name = request.param
    size = EXPORTED.get(name, (64, 96))
    net = warm_up(seeded_network(name, 21), size)
    images = (noise_image(*size, seed=2, count=IMAGES.get(name, 1)) * 60 + 110).clamp(0, 255).byte().permute(0, 2, 3, 1)
    path = tmp_path_factory.mktemp(name) / "net.onnx"
    export_onnx(net, path, size=size, spec=SPEC)
    with torch.no_grad():  # in float64, so that only the exported network rounds
        scores = PortableNetwork(net, SPEC).double()(images)
    for tensor in (*net.parameters(), *net.buffers()):  # torch's exporter keeps references to them
        tensor.data = tensor.new_empty(0)
    yield Exported(name, path, images.numpy(), scores.float().numpy())
    path.unlink()  # up to 1 GB each


def warm_up(net: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Set batch statistics from random images and make residuals small, as training would.

    A new deep ResNet doubles the variance at every block, beyond the precision of float32.
    """
    for block in net.modules():
        if isinstance(block, Bottleneck | BasicBlock):
            nn.init.constant_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight, 0.2)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = None
    if norms:
        with torch.no_grad():
            net.train()(noise_image(*size, seed=1, count=4))
    return net.eval()


def test_the_labels_are_not_all_equal(exported: Exported) -> None:
    assert np.unique(exported.labels).size > 1


def test_the_export_has_only_portable_operators(exported: Exported) -> None:
    nodes = onnx.load(exported.path).graph.node
    assert not {node.op_type for node in nodes} & UNPORTABLE
    assert all(len(node.output) == 1 for node in nodes if node.op_type == "MaxPool")


def test_onnx_runtime_agrees_with_torch(exported: Exported) -> None:
    (scores,) = ort.InferenceSession(exported.path).run(None, {"image": exported.images})
    exported.assert_agrees(scores)


def test_openvino_agrees_with_torch(exported: Exported) -> None:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as backends/openvino.py does
    import openvino as ov

    model: Any = ov.Core().read_model(exported.path)
    model.reshape(exported.images.shape)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    assert [output.any_name for output in compiled.outputs] == ["scores"], "OpenVINO computes every output"
    exported.assert_agrees(compiled(exported.images)["scores"])


def test_tensorrt_builds_it(exported: Exported) -> None:
    """Build in fp16 unless the network is large, for one GPU generation each, some networks for all."""
    onnx_size = exported.path.stat().st_size
    precision = "fp16" if onnx_size < 3e8 else "f32"  # the conversion keeps several copies of a network in memory
    every = list_compute_capabilities()
    of_all = every if exported.name in FOR_EVERY_GPU else every[list(BUILDERS).index(exported.name) % len(every) :][:1]
    for capability in of_all:
        plan = build_plan(
            exported.path.read_bytes(),
            precision=precision,
            batch=4,
            compute_capability=capability,
            name=exported.name,
        )
        assert len(plan) > onnx_size * {"fp16": 0.45, "f32": 0.9}[precision]


def test_tensorrt_builds_for_75_to_120() -> None:
    assert {"7.5", "8.0", "8.6", "8.9", "12.0"} <= set(list_compute_capabilities())


def test_a_frame_goes_through_the_pipeline(exported: Exported) -> None:
    height, width = exported.images.shape[1:3]
    camera = Synthetic(width=width, height=height, frames=1)
    seen: list[Frame] = []

    def keep(frames: Frames) -> Frames:
        for frame in frames:
            seen.append(frame)
            yield frame

    segment = Segment(network=str(write_sidecar(exported)), backend="onnxruntime", precision="f32")
    graph = run_graph(
        [
            make_node("synthetic", "source", camera),
            make_node("segment", "segment", segment, "synthetic"),
            make_node("overlay", "overlay", Overlay(), "segment"),
            make_node("sink", "output", keep, "overlay"),
        ],
        within_s=300,  # half a gigabyte of weights, on a busy machine
    )
    assert graph.error is None
    (frame,) = seen
    assert frame.semantic is not None
    image = next(iter(camera(iter(())))).image
    (scores,) = ort.InferenceSession(exported.path).run(None, {"image": image[None]})
    assert (frame.semantic.labels == exported.labels_of(scores)[0]).mean() > 0.999
    assert (frame.image != image).any()


def write_sidecar(exported: Exported) -> Path:
    """Write the side-car that makes an export a network of the pipeline. Return the path of the ONNX."""
    sidecar = {
        "name": exported.name,
        "size": exported.images.shape[1:3],
        "classes": [f"class {number}" for number in range(exported.scores.shape[1])],
        "palette": "voc",
        "sha256": hashlib.sha256(exported.path.read_bytes()).hexdigest(),
    }
    exported.path.with_suffix(".json").write_text(json.dumps(sidecar), encoding="utf-8")
    return exported.path


def test_shipped_networks_are_in_the_registry() -> None:
    assert set(NETWORKS) <= set(BUILDERS)
