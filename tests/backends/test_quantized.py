"""Networks that are quantized themselves, by ONNX Runtime or by hand: every backend computes the same scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from stream_seg.backends.openvino_quantized import correct_quantized
from stream_seg.backends.tensorrt.backend import compile_network, lower_network
from stream_seg.engines.open import open_engine
from stream_seg.errors import NetworkError
from stream_seg.network.network import Network, open_network
from stream_seg.stages.synthetic import Synthetic
from stream_seg.types import Classes
from tests.support import small_networks
from tests.support.small_networks import CLASSES, SIZE

BIAS = np.array([0.1, -0.2, 0.3], np.float32)
SIDECARS: dict[str, dict[str, Any]] = {
    "plain": {},
    "levels": {"scale": 1},
    "one mean": {"mean": [0.5] * 3},
    "means": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]},
    "nhwc": {"layout": "nhwc"},
}


class Pictures(CalibrationDataReader):  # type: ignore[misc] # untyped
    """Noise, 0 to 1, for a network with the input `picture`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._pictures = iter([np.random.default_rng(seed).random(shape, np.float32) for seed in range(4)])

    def get_next(self) -> dict[str, Any] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {"picture": picture}


def write_quantized(
    folder: Path, sidecar: dict[str, Any], *, kind: QuantType, per_channel: bool, form: QuantFormat = QuantFormat.QDQ
) -> Network:
    """Return a network that ONNX Runtime has quantized, with a bias."""
    nhwc = sidecar.get("layout") == "nhwc"
    model = small_networks.make_model(outputs={"out": 3}, batch=1, nhwc=nhwc)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.input.append("bias")
    model.graph.initializer.append(numpy_helper.from_array(BIAS, "bias"))
    path = small_networks.write_network(folder, model, {"classes": CLASSES, **sidecar})
    pictures = Pictures((1, *SIZE, 3) if nhwc else (1, 3, *SIZE))
    weights = {"weight_type": QuantType.QInt8, "per_channel": per_channel}
    quantize_static(path, path, pictures, quant_format=form, activation_type=kind, **weights)
    return open_network(path)


def compute_reference(network: Network, image: Any) -> Any:
    """Return the scores of a portable network, computed by ONNX Runtime without its optimizer."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(network.f32, options, providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"image": image[None]})[0]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8], ids=["uint8", "int8"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("name", SIDECARS)
def test_scaling_before_a_quantized_network(
    name: str, per_channel: bool, kind: QuantType, backend: str, tmp_path: Path
) -> None:
    network = write_quantized(tmp_path, SIDECARS[name], kind=kind, per_channel=per_channel)
    image = small_networks.make_image()
    expected = compute_reference(network, image)
    with open_engine(network, backend=backend, precision="f32") as engine:
        scores = engine.infer(image[None]).scores
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    if name in ("plain", "nhwc"):  # the input was calibrated for this range
        np.testing.assert_allclose(
            expected[0], small_networks.expected_scores(image, 3) + BIAS[:, None, None], atol=0.02
        )


@pytest.mark.parametrize("precision", ["f32", "fp16"])
@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8], ids=["uint8", "int8"])
def test_tensorrt_builds_a_quantized_network(kind: QuantType, precision: str, tmp_path: Path) -> None:
    """With the same scores, but for the ranges that become symmetric."""
    pytest.importorskip("tensorrt_rtx")
    network = write_quantized(tmp_path, {}, kind=kind, per_channel=True)
    image = small_networks.make_image()
    session = ort.InferenceSession(lower_network(network, precision), providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"image": image[None]})[0]
    expected = compute_reference(network, image)
    np.testing.assert_allclose(scores, expected, atol=0.02 * np.ptp(expected))
    assert compile_network(network, precision, compute_capability="8.9")


def test_torch_and_others_say_what_they_lack(tmp_path: Path) -> None:
    network = write_quantized(tmp_path, {}, kind=QuantType.QUInt8, per_channel=False)
    with pytest.raises(NetworkError, match=r"mine: torch has no quantized operators \(DequantizeLinear network/"):
        open_engine(network, backend="torch")
    keys: dict[str, Any] = {"kind": QuantType.QUInt8, "form": QuantFormat.QOperator}
    image = small_networks.make_image()
    network = write_quantized(tmp_path, {}, per_channel=False, **keys)
    with open_engine(network, backend="openvino", precision="f32") as engine:
        np.testing.assert_allclose(engine.infer(image[None]).scores, compute_reference(network, image), atol=1e-5)
    network = write_quantized(tmp_path, {}, per_channel=True, **keys)
    with pytest.raises(NetworkError, match="OpenVINO computes QLinearConv with a scale for each channel wrongly"):
        open_engine(network, backend="openvino")


def make_joined(kinds: list[tuple[float, Any]], *, last: Any = None, pools: bool = False) -> ModelProto:
    """Return a network that quantizes its input with each (scale, zero point), joins the results and convolves them."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *SIZE, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3, None, None])
    weights = np.random.default_rng(0).normal(size=(3, 3 * len(kinds), 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["levels", "1/128"], ["high"]),
        helper.make_node("Sub", ["high", "one"], ["signed"]),
        helper.make_node("Transpose", ["signed"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    constants: dict[str, Any] = {"1/128": np.float32(1 / 128), "one": np.float32(1)}

    def quantize(source: str, name: str, scale: float, zero: Any) -> str:
        constants.update({f"{name} scale": np.float32(scale), f"{name} zero": zero})
        parameters = [f"{name} scale", f"{name} zero"]
        nodes.append(helper.make_node("QuantizeLinear", [source, *parameters], [f"{name} q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name} q", *parameters], [name]))
        return name

    parts = [quantize("planes", f"part {i}", scale, zero) for i, (scale, zero) in enumerate(kinds)]
    if pools:
        for part in parts:
            nodes.append(helper.make_node("MaxPool", [part], [f"{part} pooled"], kernel_shape=[2, 2], strides=[2, 2]))
        parts = [f"{part} pooled" for part in parts]
    nodes.append(helper.make_node("Concat", parts, ["joined"], axis=1))
    joined = "joined" if last is None else quantize("joined", "last", *last)
    constants.update({"weights q": np.clip(np.round(weights / 0.02), -127, 127).astype(np.int8)})
    constants.update({"weights scale": np.float32(0.02), "weights zero": np.int8(0)})
    nodes.append(helper.make_node("DequantizeLinear", ["weights q", "weights scale", "weights zero"], ["weights d"]))
    nodes.append(helper.make_node("Conv", [joined, "weights d"], ["scores"]))
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "joined", [image], [scores], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


I8, U8 = (0.0113, np.int8(0)), (0.0113, np.uint8(128))
JOINED: dict[str, dict[str, Any]] = {
    "int8": {"kinds": [I8, I8]},
    "int8, other scales": {"kinds": [I8, (0.02, np.int8(-7))]},
    "int8 and uint8": {"kinds": [I8, (0.0113, np.uint8(20))]},
    "int8 behind": {"kinds": [U8, U8], "last": I8},
    "int8 before a pool": {"kinds": [I8, I8], "pools": True},
    "one scale, two zero points": {"kinds": [U8, (0.0113, np.uint8(100))]},
    "uint8": {"kinds": [U8, U8]},
    "uint8, other scales": {"kinds": [U8, (0.02, np.uint8(100))]},
}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", JOINED)
def test_quantized_tensors_that_are_joined(name: str, backend: str) -> None:
    """Without a correction OpenVINO loses a third of the result of all but the last two."""
    serialized, image = make_joined(**JOINED[name]).SerializeToString(), small_networks.make_image()
    classes = Classes(tuple(CLASSES), ((0, 0, 0),) * 3)
    network = Network("joined", classes, SIZE, serialized)
    expected = compute_reference(network, image)
    with open_engine(network, backend=backend, precision="f32") as engine:
        scores = engine.infer(image[None]).scores
    assert scores is not None
    assert np.abs(scores - expected).mean() < 0.001 * np.abs(expected).mean()
    corrected = correct_quantized(serialized, name="joined")
    assert (corrected == serialized) == name.startswith("uint8")
    np.testing.assert_allclose(compute_reference(replace(network, f32=corrected), image), expected, atol=1e-5)


def test_the_correction_leaves_other_networks_alone() -> None:
    model = small_networks.make_model(outputs={"out": 3}).SerializeToString()
    assert correct_quantized(model, name="mine") is model
    apart = make_joined([I8]).SerializeToString()
    model = onnx.load_from_string(apart)
    [concat] = [node for node in model.graph.node if node.op_type == "Concat"]
    concat.op_type = "Identity"
    del concat.attribute[:]
    apart = model.SerializeToString()
    assert correct_quantized(apart, name="mine") is apart, "int8 is right without a Concat"


def test_openvino_computes_the_shipped_network_right_as_it_is() -> None:
    """So opening it imports no onnx, which takes 0.1 s."""
    network = open_network("road")
    assert network.int8_tested
    drive = Synthetic(width=640, height=384, frames=3, cut=2, noise=6)
    images = np.stack([frame.image for frame in drive(iter(()))])
    labels = {}
    for name, candidate in {
        "as it is": network,
        "corrected": replace(network, int8_tested=False),
        "float32": replace(network, int8=None),
    }.items():
        with open_engine(candidate, backend="openvino") as engine:
            scores = [engine.infer(image[None]).scores for image in images]
            labels[name] = np.stack([score[0].argmax(0) for score in scores if score is not None])
    assert (labels["as it is"] == labels["corrected"]).mean() > 0.9999
    assert (labels["as it is"] == labels["float32"]).mean() > 0.99
