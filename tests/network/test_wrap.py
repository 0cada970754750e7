"""The grafted graph against the same in plain numpy."""

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
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.ops.resize import reduced
from stream_seg.stages.segment import segmented, smaller
from tests.support import small_networks as tiny

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def computed(onnx_path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every output of the interchange ONNX, by ONNX Runtime."""
    session = ort.InferenceSession(open_network(onnx_path).f32, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image[None]}), strict=True))


@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_scores_and_labels_are_those_of_numpy(tmp_path: Path, nhwc: bool, colour: str, opset: int) -> None:
    sidecar = {
        "classes": tiny.CLASSES,
        "layout": "nhwc" if nhwc else "nchw",
        "colour": colour,
        "mean": MEAN,
        "std": STD,
    }
    path = tiny.write(tmp_path, tiny.network(outputs={"out": 3}, nhwc=nhwc, opset=opset), {**sidecar, "scale": 127.5})
    image = tiny.picture()
    seen = image if colour == "rgb" else image[..., ::-1]
    want = tiny.said(seen, 3, scale=127.5, mean=MEAN, std=STD)
    got = computed(path, image)
    np.testing.assert_allclose(got["scores"][0], want, atol=1e-3)
    labels = upsampled_argmax(want.astype(np.float32), tiny.SIZE)
    assert got["labels"].dtype == np.uint8
    assert np.mean(got["labels"][0] == labels) >= 0.999


def test_a_later_head_wins(tmp_path: Path) -> None:
    heads = [{"output": "area", "channels": ["ground", "wall"]}, {"output": "lines", "channels": [None, "sky"]}]
    model = tiny.network(outputs={"area": 2, "lines": 2}, batch=1)
    image = tiny.picture()
    sidecar = {"classes": tiny.CLASSES, "heads": heads, "mean": [0.5] * 3}
    got = computed(tiny.write(tmp_path, model, sidecar), image)["scores"][0]
    area, lines = tiny.said(image, 2, mean=0.5), tiny.said(image, 2, seed=1, mean=0.5)
    want = np.where(lines.argmax(0) == 1, 2, area.argmax(0))
    assert set(np.unique(want)) == {0, 1, 2}
    np.testing.assert_array_equal(got.argmax(0), want)
    np.testing.assert_allclose(got[2] - got[:2].max(0), lines[1] - lines[0], atol=1e-3)


def test_one_channel_is_two_classes_at_a_threshold(tmp_path: Path) -> None:
    head = {"output": "mask", "channels": ["off", "on"], "threshold": 0.2}
    path = tiny.write(tmp_path, tiny.network(outputs={"mask": 1}), {"classes": ["off", "on"], "heads": [head]})
    image = tiny.picture()
    want = tiny.said(image, 1)[0] > 0.2
    assert 0 < want.mean() < 1
    np.testing.assert_array_equal(computed(path, image)["scores"][0].argmax(0), want)


def test_a_network_may_say_labels(tmp_path: Path) -> None:
    model = tiny.network(outputs={"scores": 3})
    model.graph.node.append(helper.make_node("Resize", ["scores", "", "", "size"], ["large"], mode="nearest"))
    model.graph.node.append(helper.make_node("ArgMax", ["large"], ["said"], axis=1, keepdims=1))
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [4], [1, 3, *tiny.SIZE]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("said", TensorProto.INT64, [None] * 4))
    path, image = tiny.write(tmp_path, model, {"classes": tiny.CLASSES}), tiny.picture()
    want = tiny.said(image, 3).argmax(0)
    with open_engine(open_network(path)) as engine:
        semantic = segmented(image, engine)
    assert semantic.scores is None
    assert semantic.labels.shape == tiny.SIZE
    np.testing.assert_array_equal(semantic.labels[::2, ::2], want)


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8])
@pytest.mark.parametrize("opset", [11, 17])
def test_labels_that_are_no_class(tmp_path: Path, kind: int, opset: int) -> None:
    """Void is what is below 0; what is above 255 stays foreign."""
    given, want = [-1, 0, 2, 100], [255, 0, 2, 100]
    if kind in (TensorProto.INT32, TensorProto.INT64):
        given, want = [*given, -1000, 255, 256, 257, 100_000], [*want, 255, 255, 254, 254, 254]
    if kind == TensorProto.UINT8:
        given, want = [0, 2, 100, 254, 255], [0, 2, 100, 254, 255]
    model = tiny.network(outputs={"scores": 3}, opset=opset)
    everywhere = np.resize(given, (1, *tiny.SIZE))
    model.graph.node.append(helper.make_node("Cast", ["constant"], ["said"], to=kind))
    model.graph.initializer.append(helper.make_tensor("constant", TensorProto.INT32, everywhere.shape, everywhere.flat))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("said", kind, [None] * 3))
    said = computed(tiny.write(tmp_path, model, {"classes": tiny.CLASSES}), tiny.picture())["labels"]
    np.testing.assert_array_equal(said, np.resize(want, said.shape))


def test_an_open_size_is_filled_in(tmp_path: Path) -> None:
    model = tiny.network(outputs={"out": 3}, size=("height", "width"))
    path = tiny.write(tmp_path, model, {"classes": tiny.CLASSES, "size": [32, 40]})
    assert open_network(path).size == (32, 40)
    assert computed(path, tiny.picture((32, 40)))["labels"].shape == (1, 32, 40)


def test_twinlitenet_says_what_it_says_alone(data: Path, tmp_path: Path) -> None:
    path = data / "models/twinlitenet.onnx"
    video = cv2.VideoCapture(str(data / "videos/solidWhiteRight.mp4"))
    image = reduced(np.asarray(video.read()[1]), (320, 320))
    alone = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = (image[..., ::-1].astype(np.float32) / 255).transpose(2, 0, 1)[None]
    area, lines = alone.run(["drivable_area", "lanes"], {"input": x})
    want = np.where(lines.argmax(1) == 1, 2, area.argmax(1))[0]
    assert np.bincount(want.ravel(), minlength=3).min() > 500
    said = (Path(__file__).parents[2] / "configs/networks/twinlitenet.yaml").read_text()
    ours = tmp_path / "twinlitenet.yaml"
    ours.write_text(re.sub(r"(?m)^onnx: \S+", f"onnx: {path}", said))
    for backend in ("openvino", "onnxruntime"):
        network = open_network(ours)
        with open_engine(network, backend=backend, precision="f32") as engine:
            assert np.mean(segmented(image, engine).labels == want) > 0.999


def refused(folder: Path, model: onnx.ModelProto, **sidecar: Any) -> str:
    """The one line with which a network is refused."""
    with pytest.raises((ConfigError, NetworkError)) as told:
        open_network(tiny.write(folder, model, {"classes": tiny.CLASSES, **sidecar}))
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_the_sidecar_gets_wrong(tmp_path: Path) -> None:
    model, two = tiny.network(outputs={"out": 3}), tiny.network(outputs={"a": 2, "b": 2})
    assert "2 classes for the 3 channels of output out" in refused(tmp_path, model, classes=["a", "b"])
    assert "layout: nhwc means (N, H, W, 3)" in refused(tmp_path, model, layout="nhwc")
    assert "size: [32, 32] is not to be had" in refused(tmp_path, model, size=[32, 32])
    assert "several outputs those that say a class for every pixel: a (?, 2, 8, 12), b (" in refused(tmp_path, two)
    assert "unknown output 'c'; known: a, b" in refused(tmp_path, two, heads=[{"output": "c", "channels": ["x", "y"]}])
    first = {"output": "a", "channels": ["ground", "wall"]}
    assert "no channel says sky" in refused(tmp_path, two, heads=[first])
    assert "road: not in classes" in refused(tmp_path, two, heads=[first, {"output": "b", "channels": [None, "road"]}])
    assert "one channel null" in refused(tmp_path, two, heads=[first, {"output": "b", "channels": ["wall", "sky"]}])
    open_size = tiny.network(outputs={"out": 3}, size=("height", "width"))
    assert "size: is required, [height, width]" in refused(tmp_path, open_size)


def test_what_is_wrong_with_the_onnx(tmp_path: Path) -> None:
    model = tiny.network(outputs={"out": 3})
    assert "opset 10; 11 or newer" in refused(tmp_path, tiny.network(outputs={"out": 3}, opset=10))
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    assert "input picture is float (3, 16, 24)" in refused(tmp_path, model)
    flat = tiny.network(outputs={"out": 3})
    flat.graph.node.append(helper.make_node("Flatten", ["out"], ["flat"]))
    flat.graph.output[0].name = "flat"
    del flat.graph.output[0].type.tensor_type.shape.dim[2:]
    assert "output flat is float (?, 288); float scores of 4 axes" in refused(tmp_path, flat)
    two = tiny.network(outputs={"out": 3})
    two.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    assert "2 inputs (picture, more)" in refused(tmp_path, two)


def test_what_breaks_the_rules_of_onnx(tmp_path: Path) -> None:
    """OpenVINO crashes on the first, with the whole process."""
    model = tiny.network(outputs={"out": 3})
    del model.graph.node[0].input[1]
    assert "mine.onnx: not a valid ONNX network: Node with schema(::Conv:11) has input" in refused(tmp_path, model)
    model = tiny.network(outputs={"out": 3})
    model.graph.node[0].attribute.append(helper.make_attribute("auto_pad", b"\xff"))
    assert "not a valid ONNX network: 'utf-8' codec can't decode" in refused(tmp_path, model)
    model = tiny.network(outputs={"out": 3})
    model.graph.output[0].type.tensor_type.elem_type = 99
    model.graph.input[0].type.tensor_type.elem_type = 77
    assert "input picture is of an unknown type (77) (?, 3, 16, 24); a picture is" in refused(tmp_path, model)
    del model.graph.output[:]
    assert "no operators or no outputs in it" in refused(tmp_path, model)


def test_operators_in_any_order_are_taken_and_circles_are_not(tmp_path: Path) -> None:
    model = tiny.network(outputs={"out": 3})
    model.graph.node[0].output[0] = "planes"
    model.graph.node.insert(0, helper.make_node("Relu", ["planes"], ["out"]))
    path = tiny.write(tmp_path, model, {"classes": tiny.CLASSES})
    with open_engine(smaller(open_network(path)), backend="openvino", precision="f32") as engine:
        image = tiny.picture((8, 12))
        scores = engine.infer(image[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], np.maximum(tiny.said(image, 3), 0), atol=1e-4)
    model.graph.node[1].input[0] = "out"
    assert "its operators form a circle" in refused(tmp_path, model)
    model = tiny.network(outputs={"out": 3})
    model.graph.node.append(helper.make_node("Relu", ["picture"], ["out"]))
    assert "several operators write out" in refused(tmp_path, model)


def test_what_breaks_a_rule_and_runs_is_taken(tmp_path: Path) -> None:
    """An output by name alone, a constant twice that nobody uses, a graph without a name."""
    model = tiny.network(outputs={"out": 3})
    model.graph.node[0].output[0] = "planes"
    model.graph.node.append(helper.make_node("Relu", ["planes"], ["out"]))
    model.graph.output[0].ClearField("type")
    model.graph.initializer.extend([numpy_helper.from_array(np.zeros(1, np.float32), "unused")] * 2)
    model.graph.name = ""
    path = tiny.write(tmp_path, model, {"classes": tiny.CLASSES})
    with open_engine(open_network(path), backend="openvino", precision="f32") as engine:
        image = tiny.picture()
        scores = engine.infer(image[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], np.maximum(tiny.said(image, 3), 0), atol=1e-4)


@pytest.mark.parametrize("name", [b"picture", b"kernel out", b"strides", b"Conv", b"tiny"])
def test_a_name_that_is_no_text(tmp_path: Path, name: bytes) -> None:
    path = tiny.write(tmp_path, tiny.network(outputs={"out": 3}), {"classes": tiny.CLASSES})
    path.write_bytes(path.read_bytes().replace(name, b"\xff" + name[1:]))
    with pytest.raises(NetworkError, match=r"mine\.onnx: not an ONNX file: a name in it is no text"):
        open_network(path)


def test_operators_of_another_domain_are_left_to_the_backend(tmp_path: Path) -> None:
    model = tiny.network(outputs={"planes": 3})
    model.graph.node.append(helper.make_node("Gelu", ["planes"], ["out"], domain="com.microsoft"))
    model.graph.output[0].name = "out"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.name = ""
    path = tiny.write(tmp_path, model, {"classes": tiny.CLASSES})
    assert computed(path, tiny.picture())["scores"].shape == (1, 3, 8, 12)


def test_a_network_that_takes_bytes_gets_them_as_they_are(tmp_path: Path) -> None:
    model = tiny.network(outputs={"out": 3})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node[0].input[0] = "float"
    model.graph.node.insert(0, helper.make_node("Cast", ["picture"], ["float"], to=TensorProto.FLOAT))
    image, neutral = tiny.picture(), {"scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}
    for said in ({}, neutral):
        path = tiny.write(tmp_path, model, {"classes": tiny.CLASSES, **said})
        np.testing.assert_allclose(computed(path, image)["scores"][0], tiny.said(image, 3, scale=1), rtol=1e-4)
    for key, value in (("scale", 255), ("mean", MEAN), ("std", STD)):
        assert f"{key}: the network takes uint8, 0-255 as they are" in refused(tmp_path, model, **{key: value})


def test_files_that_are_no_onnx(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, tiny.network(outputs={"out": 3}), {"classes": tiny.CLASSES})
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
    path = tiny.write(folder, tiny.network(outputs={"out": 3}), {"classes": tiny.CLASSES})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    image = tiny.picture()
    np.testing.assert_allclose(computed(path, image)["scores"][0], tiny.said(image, 3), atol=1e-3)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(NetworkError, match="external data must be files in its own folder"):
        open_network(path)
