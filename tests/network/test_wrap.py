"""A wrapped ONNX compared with the same pre- and post-processing in numpy, and the errors of one that does not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import open_network
from stream_seg.ops.resize import resize_image
from stream_seg.stages.segment import halve_network, segment_image
from tests.support import small_networks
from tests.support.small_networks import extend, make_image

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def run_onnx(onnx_path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    """Return every output of the portable ONNX of a network, computed by ONNX Runtime."""
    session = ort.InferenceSession(open_network(onnx_path).f32, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image[None]}), strict=True))


@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_scores_equal_those_of_numpy(tmp_path: Path, nhwc: bool, colour: str, opset: int) -> None:
    sidecar = {
        "classes": small_networks.CLASSES,
        "layout": "nhwc" if nhwc else "nchw",
        "colour": colour,
        "mean": MEAN,
        "std": STD,
    }
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}, nhwc=nhwc, opset=opset), {**sidecar, "scale": 127.5}
    )
    image = small_networks.make_image()
    reordered = image if colour == "rgb" else image[..., ::-1]
    scores = small_networks.expected_scores(reordered, 3, scale=127.5, mean=MEAN, std=STD)
    outputs = run_onnx(path, image)
    assert list(outputs) == ["scores"]
    np.testing.assert_allclose(outputs["scores"][0], scores, atol=1e-3)


def test_a_later_head_wins(tmp_path: Path) -> None:
    heads = [{"output": "area", "channels": ["ground", "wall"]}, {"output": "lines", "channels": [None, "sky"]}]
    model = small_networks.make_model(outputs={"area": 2, "lines": 2}, batch=1)
    image = small_networks.make_image()
    sidecar = {"classes": small_networks.CLASSES, "heads": heads, "mean": [0.5] * 3}
    scores = run_onnx(small_networks.write_network(tmp_path, model, sidecar), image)["scores"][0]
    area, lines = (
        small_networks.expected_scores(image, 2, mean=0.5),
        small_networks.expected_scores(image, 2, seed=1, mean=0.5),
    )
    expected = np.where(lines.argmax(0) == 1, 2, area.argmax(0))
    assert set(np.unique(expected)) == {0, 1, 2}
    np.testing.assert_array_equal(scores.argmax(0), expected)
    np.testing.assert_allclose(scores[2] - scores[:2].max(0), lines[1] - lines[0], atol=1e-3)


def test_one_channel_is_two_classes_at_a_threshold(tmp_path: Path) -> None:
    head = {"output": "mask", "channels": ["off", "on"], "threshold": 0.2}
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"mask": 1}), {"classes": ["off", "on"], "heads": [head]}
    )
    image = small_networks.make_image()
    expected = small_networks.expected_scores(image, 1)[0] > 0.2
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(run_onnx(path, image)["scores"][0].argmax(0), expected)


def test_a_network_may_output_labels(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"scores": 3})
    model.graph.node.append(helper.make_node("Resize", ["scores", "", "", "size"], ["large"], mode="nearest"))
    model.graph.node.append(helper.make_node("ArgMax", ["large"], ["small"], axis=1, keepdims=1))
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [4], [1, 3, *small_networks.SIZE]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("small", TensorProto.INT64, [None] * 4))
    path, image = (
        small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES}),
        small_networks.make_image(),
    )
    expected = small_networks.expected_scores(image, 3).argmax(0)
    with open_engine(open_network(path)) as engine:
        semantic = segment_image(image, engine)
    assert semantic.scores is None
    assert semantic.labels.shape == small_networks.SIZE
    np.testing.assert_array_equal(semantic.labels[::2, ::2], expected)


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8])
@pytest.mark.parametrize("opset", [11, 17])
def test_labels_without_a_class(tmp_path: Path, kind: int, opset: int) -> None:
    """Labels below 0 and above 255 become void; that others have a class is checked when they occur."""
    values, expected = [-1, 0, 2, 100], [255, 0, 2, 100]
    if kind in (TensorProto.INT32, TensorProto.INT64):
        values, expected = [*values, -1000, 255, 256, 257, 100_000], [*expected, 255, 255, 255, 255, 255]
    if kind == TensorProto.UINT8:
        values = expected = [0, 2, 100, 254, 255]
    model = small_networks.make_model(outputs={"scores": 3}, opset=opset)
    constant = np.resize(values, (1, *small_networks.SIZE))
    model.graph.node.append(helper.make_node("Cast", ["constant"], ["small"], to=kind))
    model.graph.initializer.append(helper.make_tensor("constant", TensorProto.INT32, constant.shape, constant.flat))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("small", kind, [None] * 3))
    labels = run_onnx(
        small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES}), small_networks.make_image()
    )["labels"]
    np.testing.assert_array_equal(labels, np.resize(expected, labels.shape))


def test_the_side_car_sets_an_open_size(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3}, size=("height", "width"))
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES, "size": [32, 40]})
    assert open_network(path).size == (32, 40)
    assert run_onnx(path, small_networks.make_image((32, 40)))["scores"].shape == (1, 3, 16, 20)


def test_wrapping_does_not_change_the_labels_of_twinlitenet(data: Path, tmp_path: Path) -> None:
    path = data / "models/twinlitenet.onnx"
    video = cv2.VideoCapture(str(data / "videos/solidWhiteRight.mp4"))
    image = resize_image(np.asarray(video.read()[1]), (320, 320))
    alone = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = (image[..., ::-1].astype(np.float32) / 255).transpose(2, 0, 1)[None]
    area, lines = alone.run(["drivable_area", "lanes"], {"input": x})
    expected = np.where(lines.argmax(1) == 1, 2, area.argmax(1))[0]
    assert np.bincount(expected.ravel(), minlength=3).min() > 500
    sidecar = (Path(__file__).parents[2] / "configs/networks/twinlitenet.yaml").read_text()
    absolute = tmp_path / "twinlitenet.yaml"
    absolute.write_text(re.sub(r"(?m)^onnx: \S+", f"onnx: {path}", sidecar))
    for backend in ("openvino", "onnxruntime"):
        network = open_network(absolute)
        with open_engine(network, backend=backend, precision="f32") as engine:
            assert np.mean(segment_image(image, engine).labels == expected) > 0.999


def error_of(folder: Path, model: onnx.ModelProto, **sidecar: Any) -> str:
    """Return the one-line error for a network."""
    with pytest.raises((ConfigError, NetworkError)) as caught:
        open_network(small_networks.write_network(folder, model, {"classes": small_networks.CLASSES, **sidecar}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_errors_for_a_sidecar_that_does_not_fit(tmp_path: Path) -> None:
    model, two = small_networks.make_model(outputs={"out": 3}), small_networks.make_model(outputs={"a": 2, "b": 2})
    assert "2 classes for the 3 channels of output out" in error_of(tmp_path, model, classes=["a", "b"])
    assert "layout: nhwc means (N, H, W, 3)" in error_of(tmp_path, model, layout="nhwc")
    assert "size: [32, 32] does not fit, remove it" in error_of(tmp_path, model, size=[32, 32])
    assert "to select the outputs with a class for every pixel from: a (?, 2, 8, 12), b (" in error_of(tmp_path, two)
    assert "unknown output 'c'; known: a, b" in error_of(tmp_path, two, heads=[{"output": "c", "channels": ["x", "y"]}])
    first = {"output": "a", "channels": ["ground", "wall"]}
    assert "no channel for sky" in error_of(tmp_path, two, heads=[first])
    assert "road: not in classes" in error_of(tmp_path, two, heads=[first, {"output": "b", "channels": [None, "road"]}])
    assert "one channel null" in error_of(tmp_path, two, heads=[first, {"output": "b", "channels": ["wall", "sky"]}])
    open_size = small_networks.make_model(outputs={"out": 3}, size=("height", "width"))
    assert "size: is required, [height, width]" in error_of(tmp_path, open_size)


def test_errors_for_an_onnx_that_does_not_fit(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3})
    assert "opset 10; export it again with opset 11 or newer" in error_of(
        tmp_path, small_networks.make_model(outputs={"out": 3}, opset=10)
    )
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    assert "input picture is float (3, 16, 24)" in error_of(tmp_path, model)
    flat = small_networks.make_model(outputs={"out": 3})
    flat.graph.node.append(helper.make_node("Flatten", ["out"], ["flat"]))
    flat.graph.output[0].name = "flat"
    del flat.graph.output[0].type.tensor_type.shape.dim[2:]
    assert "output flat is float (?, 288); expected scores with 4 axes" in error_of(tmp_path, flat)
    two = small_networks.make_model(outputs={"out": 3})
    two.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    assert "2 inputs (picture, more)" in error_of(tmp_path, two)


def test_an_invalid_onnx_is_refused(tmp_path: Path) -> None:
    """OpenVINO crashes on the first one, with the whole process."""
    model = small_networks.make_model(outputs={"out": 3})
    del model.graph.node[0].input[1]
    assert "mine.onnx: not a valid ONNX network: Node with schema(::Conv:11) has input" in error_of(tmp_path, model)
    model = small_networks.make_model(outputs={"out": 3})
    model.graph.node[0].attribute.append(helper.make_attribute("auto_pad", b"\xff"))
    assert "not a valid ONNX network: 'utf-8' codec can't decode" in error_of(tmp_path, model)
    model = small_networks.make_model(outputs={"out": 3})
    model.graph.output[0].type.tensor_type.elem_type = 99
    model.graph.input[0].type.tensor_type.elem_type = 77
    assert "input picture is of an unknown type (77) (?, 3, 16, 24); expected an image" in error_of(tmp_path, model)
    del model.graph.output[:]
    assert "it has no operators or no outputs" in error_of(tmp_path, model)


def test_a_tensor_that_nothing_writes_is_refused(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3})
    model.graph.node[0].input[1] = "gone"
    assert "mine.onnx: not a valid ONNX network: nothing writes gone" in error_of(tmp_path, model)
    model = small_networks.make_model(outputs={"out": 3})
    model.graph.output[0].name = "lost"
    assert "mine.onnx: not a valid ONNX network: nothing writes lost" in error_of(tmp_path, model)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_functions_of_a_network_are_replaced_by_their_operators(backend: str, tmp_path: Path) -> None:
    """As torch's exporter writes them without optimization."""
    model = extend(small_networks.make_model(outputs={"scores": 3}, batch=1), ("Identity",))
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Positive", "mine"
    opset = [helper.make_opsetid("", 17)]
    body = helper.make_function("mine", "Positive", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], opset)
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    path, image = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES}), make_image()
    with open_engine(open_network(path), backend=backend, precision="f32") as engine:
        scores = engine.infer(image[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], np.maximum(small_networks.expected_scores(image, 3), 0), atol=1e-4)
    model.functions[0].node[0].op_type = "NoSuchOperator"
    assert "unknown operators: NoSuchOperator" in error_of(tmp_path, model)


@pytest.mark.parametrize(
    ("step", "domain", "message"),
    [
        ("Mine", "my.domain", "mine.onnx: unknown operators: my.domain.Mine; export it in standard ONNX operators"),
        ("BiasGelu", "com.microsoft", "mine.yaml: output y is float of an unknown shape; expected scores with 4 axes"),
        ("Scaler", "ai.onnx.ml", "mine.yaml: output y is float of an unknown shape; expected scores with 4 axes"),
    ],
)
def test_operators_of_other_domains(step: str, domain: str, message: str, tmp_path: Path) -> None:
    model = extend(small_networks.make_model(outputs={"scores": 3}, batch=1), ("Identity",))
    model.graph.node[-1].op_type, model.graph.node[-1].domain = step, domain
    model.opset_import.append(helper.make_opsetid(domain, 1))
    assert message in error_of(tmp_path, model)


@pytest.mark.parametrize("opset", [9, 10, *range(11, 25)])
def test_every_opset_is_taken_or_refused(opset: int, tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"scores": 3}, batch=1, opset=opset)
    model = extend(model, ("Cast", {"to": TensorProto.FLOAT16}), kind=TensorProto.FLOAT16)
    if opset < 11:
        assert f"mine.onnx: ONNX opset {opset}; export it again with opset 11 or newer" in error_of(tmp_path, model)
        return
    image = make_image()
    outputs = run_onnx(small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES}), image)
    np.testing.assert_allclose(outputs["scores"][0], small_networks.expected_scores(image, 3), atol=2e-3)


def test_operators_may_be_unsorted_but_not_cyclic(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3})
    model.graph.node[0].output[0] = "planes"
    model.graph.node.insert(0, helper.make_node("Relu", ["planes"], ["out"]))
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    with open_engine(halve_network(open_network(path)), backend="openvino", precision="f32") as engine:
        image = small_networks.make_image((8, 12))
        scores = engine.infer(image[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], np.maximum(small_networks.expected_scores(image, 3), 0), atol=1e-4)
    model.graph.node[1].input[0] = "out"
    assert "its operators form a cycle" in error_of(tmp_path, model)
    model = small_networks.make_model(outputs={"out": 3})
    model.graph.node.append(helper.make_node("Relu", ["picture"], ["out"]))
    assert "several operators write out" in error_of(tmp_path, model)


def test_harmless_faults_are_accepted(tmp_path: Path) -> None:
    """An output without a type, a duplicate constant that is not used, a graph without a name."""
    model = small_networks.make_model(outputs={"out": 3})
    model.graph.node[0].output[0] = "planes"
    model.graph.node.append(helper.make_node("Relu", ["planes"], ["out"]))
    model.graph.output[0].ClearField("type")
    model.graph.initializer.extend([numpy_helper.from_array(np.zeros(1, np.float32), "unused")] * 2)
    model.graph.name = ""
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    with open_engine(open_network(path), backend="openvino", precision="f32") as engine:
        image = small_networks.make_image()
        scores = engine.infer(image[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], np.maximum(small_networks.expected_scores(image, 3), 0), atol=1e-4)


@pytest.mark.parametrize("name", [b"picture", b"kernel out", b"strides", b"Conv", b"tiny"])
def test_a_name_must_be_text(tmp_path: Path, name: bytes) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    path.write_bytes(path.read_bytes().replace(name, b"\xff" + name[1:]))
    with pytest.raises(NetworkError, match=r"mine\.onnx: not an ONNX file: it has a name that is not UTF-8 text"):
        open_network(path)


def test_operators_of_another_domain_are_left_to_the_backend(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"planes": 3})
    model.graph.node.append(helper.make_node("Gelu", ["planes"], ["out"], domain="com.microsoft"))
    model.graph.output[0].name = "out"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.name = ""
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    assert run_onnx(path, small_networks.make_image())["scores"].shape == (1, 3, 8, 12)


def test_a_network_that_takes_uint8_gets_the_levels_unchanged(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node[0].input[0] = "float"
    model.graph.node.insert(0, helper.make_node("Cast", ["picture"], ["float"], to=TensorProto.FLOAT))
    image, neutral = small_networks.make_image(), {"scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}
    for keys in ({}, neutral):
        path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES, **keys})
        np.testing.assert_allclose(
            run_onnx(path, image)["scores"][0], small_networks.expected_scores(image, 3, scale=1), rtol=1e-4
        )
    for key, value in (("scale", 255), ("mean", MEAN), ("std", STD)):
        assert f"{key}: the network takes uint8 with unchanged levels 0-255" in error_of(
            tmp_path, model, **{key: value}
        )


def test_errors_for_files_that_are_not_onnx(tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    for content, reason in (
        (b"", "no operators"),
        (b"this is text, not a network\n" * 9, "not an ONNX"),
        (path.read_bytes()[:99], ""),
    ):
        path.write_bytes(content)
        with pytest.raises(NetworkError, match=rf"mine\.onnx: .*{reason}"):
            open_network(path)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = small_networks.write_network(
        folder, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    image = small_networks.make_image()
    np.testing.assert_allclose(run_onnx(path, image)["scores"][0], small_networks.expected_scores(image, 3), atol=1e-3)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(NetworkError, match="external data must be files in its own folder"):
        open_network(path)
