"""TensorRT plans, built for GPUs that this machine lacks, and the graphs that they are built from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from stream_seg.backends.choose import find_missing, find_target
from stream_seg.backends.engine import prune_onnx, select_onnx
from stream_seg.backends.tensorrt.api import get_logger, import_tensorrt
from stream_seg.backends.tensorrt.backend import build_plan, create_engine, list_compute_capabilities, parse_onnx
from stream_seg.backends.tensorrt.precision import convert_precision
from stream_seg.engines.build import build_for_targets
from stream_seg.engines.build_one import Reporter
from stream_seg.engines.recipe import EngineRecipe
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network, open_network
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.ops.resize import resize_image
from stream_seg.stages.synthetic import Synthetic
from tests.support import small_networks

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def road() -> Network:
    return open_network("road")


@pytest.fixture
def small(tmp_path: Path) -> Network:
    return open_network(
        small_networks.write_network(
            tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
        )
    )


def parse(serialized: bytes, precision: str) -> Any:
    """Return the builder, which must outlive the network, and the network definition of an ONNX."""
    builder = import_tensorrt().Builder(get_logger())
    return builder, parse_onnx(builder, convert_precision(serialized, precision=precision, name="road"), name="road")


def compute_labels(serialized: bytes, image: NDArray[np.uint8]) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it cannot transpose fp8
    session = ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    return upsampled_argmax(session.run(["scores"], {"image": image[None]})[0][0], image.shape[:2])


@pytest.mark.parametrize(
    ("precision", "capability"),
    [
        ("f32", "7.5"),
        ("fp16", "8.0"),
        ("int8", "8.6"),
        ("int8", "8.9"),
        ("fp8", "8.9"),
        ("fp16", "12.0"),
        ("int8", None),
    ],
)
def test_the_road_network_builds(road: Network, precision: str, capability: str | None) -> None:
    began = time.perf_counter()
    onnx = select_onnx(road, precision)
    plan = build_plan(onnx, precision=precision, batch=8, compute_capability=capability)
    print(f"{precision} for {capability}: {len(plan) / 1e6:.1f} MB in {time.perf_counter() - began:.1f} s")
    # most of a plan are its 2.58 million weights, in the type of the precision
    least = 2.58e6 * {"f32": 4, "fp16": 2, "int8": 1, "fp8": 1}[precision]
    assert least < len(plan) < least + 5e6
    assert plan[1:4] == b"trt"  # nothing before the plan


def test_fp8_is_built_on_request_where_the_gpu_has_it(road: Network, tmp_path: Path) -> None:
    recipe = EngineRecipe(network="road", precision="fp8", agreement=90)
    lines: list[str] = []
    report = Reporter(lines.append)
    result = build_for_targets(road, [find_target("tensorrt", "8.9")], recipe, folder=tmp_path, report=report)
    assert (result.entry.key.precision, result.fresh) == ("fp8", True)
    assert "road: comparing fp8 on tensorrt with f32 on 24 images" in lines
    with pytest.raises(ConfigError, match=r"tensorrt on any GPU of capability 8\.6 offers int8, fp16, f32"):
        build_for_targets(road, [find_target("tensorrt", "8.6")], recipe, folder=tmp_path, report=report)


def test_tensors_have_the_types_of_the_precision(road: Network) -> None:
    trt = import_tensorrt()
    types = {}
    for precision in ("f32", "fp16", "int8", "fp8"):
        builder, network = parse(select_onnx(road, precision), precision)
        assert network.get_input(0).dtype == trt.uint8
        assert [network.get_output(i).dtype for i in range(network.num_outputs)] == [trt.float32]
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        names = {str(layer.get_output(0).dtype).split(".")[1] for layer in layers}
        types[precision] = names - {"INT64", "INT32", "BOOL"}
        del layers, network, builder
    assert types["f32"] == {"FLOAT"}
    assert types["fp16"] == {"HALF", "FLOAT"}
    assert types["int8"] == {"FLOAT", "INT8"}
    assert types["fp8"] == {"FLOAT", "FP8"}


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.99), ("int8", 0.98), ("fp8", 0.95)])
def test_the_graph_for_tensorrt_has_the_labels_of_the_network(road: Network, precision: str, least: float) -> None:
    # the synthetic road is not in the calibration images: 0.98 here, 0.99 on CamVid
    frame = next(iter(Synthetic(width=480, height=352, frames=1, paced=False)(iter(()))))
    image = resize_image(frame.image, road.size)
    labels = compute_labels(convert_precision(select_onnx(road, precision), precision=precision, name="road"), image)
    assert (labels == compute_labels(road.f32, image)).mean() >= least


def test_a_relu_keeps_its_upper_half(road: Network) -> None:
    """A uint8 quantization has 255 steps; TensorRT would read it as int8, which ends at 127."""
    assert road.int8 is not None
    before = onnx.load_from_string(road.int8)
    after = onnx.load_from_string(convert_precision(road.int8, precision="int8", name=""))
    old, new = ({t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (before, after))
    quantizers = [node.input for node in before.graph.node if node.op_type == "QuantizeLinear"]
    unsigned = [names for names in quantizers if old[names[2]].dtype == np.uint8]
    assert len(unsigned) > 20
    for _, scale, zero in unsigned:
        assert new[zero] == 0
        assert new[zero].dtype == np.int8
        np.testing.assert_allclose(127 * new[scale], 255 * old[scale], rtol=1e-6)


def test_a_precision_that_the_gpu_lacks_is_refused(road: Network) -> None:
    with pytest.raises(NetworkError, match=r"^road: TensorRT cannot build it: .*sm75.*fp8") as caught:
        build_plan(select_onnx(road, "fp8"), precision="fp8", compute_capability="7.5", name="road")
    assert "\n" not in str(caught.value)


def test_an_unknown_operator_is_named(small: Network) -> None:
    model = onnx.load_from_string(small.f32)
    operator = next(node for node in model.graph.node if node.op_type == "Conv")
    operator.op_type, operator.name = "NoSuchOperator", "the third"
    message = r"^mine: TensorRT cannot read it: operator NoSuchOperator \(the third\): "
    with pytest.raises(NetworkError, match=message) as caught:
        build_plan(model.SerializeToString(), precision="f32", name="mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compute_capability": "9.9"}, r"compute capability '9.9'; .* builds for 7.5, 8.0, 8.6, 8.9"),
        ({"precision": "int8"}, r"precision int8 needs the network's int8 form"),
        ({"onnx": b"\xff\xff\xff"}, r"TensorRT cannot read it"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(small: Network, arguments: dict[str, Any], message: str) -> None:
    defaults = {"onnx": small.f32, "precision": "f32", "name": "mine"}
    with pytest.raises(NetworkError, match=message):
        build_plan(**{**defaults, **arguments})


def test_a_fixed_batch_decides_on_the_number_of_images(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3}, batch=1)
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    graph = prune_onnx(open_network(path).f32)[1]
    plan = build_plan(graph, precision="f32", compute_capability="8.9")
    assert build_plan(graph, precision="f32", compute_capability="8.9", batch=4) == plan, "for one image in any case"


def test_progress_is_reported_and_may_end_the_build(small: Network) -> None:
    steps: list[tuple[str, int, int]] = []
    build_plan(small.f32, precision="f32", on_step=lambda *step: steps.append(step))
    assert "Building engine" in {phase for phase, _, _ in steps}
    assert all(1 <= done <= total for _, done, total in steps)

    def interrupt(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(small.f32, precision="f32", on_step=interrupt)


def test_the_compute_capabilities_of_the_package() -> None:
    assert {"7.5", "8.6", "8.9", "12.0"} <= set(list_compute_capabilities())


@pytest.mark.skipif(find_missing("tensorrt") is None, reason="this machine has a GPU")
def test_a_machine_without_a_gpu(small: Network) -> None:
    with pytest.raises(NetworkError, match=r"^tensorrt: no NVIDIA GPU[^\n]*$"):
        create_engine(small, precision="f32")
