"""Opening networks from every source, and the errors for what is not a network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from stream_seg.datasets.palettes import CAMVID, CITYSCAPES, SYNTHETIC
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError, StreamSegError
from stream_seg.network.network import is_network, open_network, save_network
from stream_seg.network.onnx_builder import OnnxBuilder
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.network.sidecar import make_classes
from tests.support import small_networks

MODEL = small_networks.make_model(outputs={"out": 3})


def error_of(source: Any) -> str:
    """Return the one-line error for a source."""
    with pytest.raises(StreamSegError) as caught:
        open_network(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_road_network_is_shipped() -> None:
    road = open_network("road")
    assert (road.name, road.size, road.classes) == ("road", (384, 640), SYNTHETIC)
    assert road.int8 is not None
    assert len(road.int8) < len(road.f32) <= 15e6
    assert road.int8_report is not None
    assert road.int8_report["refused"] is None
    assert road.int8_report["held_back"]["labelled"] > 0
    assert road.int8_report["held_back"]["miou_loss"] <= road.int8_report["limits"]["miou_loss"] == 0.5


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("road.onnx", "1ac050bc004a27652e4d476b03665dc1071c655c052a4dbe9dbe3817afc54cce"),
        ("road_int8.onnx", "d3a4f46b9cfdd0ca531e55e4792429c16cd325ecd89eaa8213664b41780c9779"),
    ],
)
def test_the_shipped_files_have_the_measured_weights_and_scores_alone(name: str, constants: str) -> None:
    graph = onnx.load(SHIPPED / name).graph
    assert [output.name for output in graph.output] == ["scores"]
    tensors = sorted(graph.initializer, key=lambda tensor: tensor.name)
    assert hashlib.sha256(b"".join(tensor.SerializeToString() for tensor in tensors)).hexdigest() == constants


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_a_network_that_was_exported_with_labels_beside_its_scores(backend: str, tmp_path: Path) -> None:
    path = small_networks.write_network(tmp_path, MODEL, {"classes": small_networks.CLASSES})
    network = open_network(path)
    model = onnx.load_from_string(network.f32)
    add = OnnxBuilder("after", opset=17)
    full = add("Resize", "scores", "", "", add.constant([1, 3, *network.size], np.int64), mode="linear")
    add("Cast", add("ArgMax", full, axis=1, keepdims=0), to=onnx.TensorProto.UINT8, out="labels")
    model.graph.node.extend(add.nodes)
    model.graph.initializer.extend(add.constants)
    labels = onnx.helper.make_tensor_value_info("labels", onnx.TensorProto.UINT8, ["batch", *network.size])
    model.graph.output.append(labels)
    earlier = save_network(replace(network, f32=model.SerializeToString()), tmp_path / "earlier.onnx")
    image = small_networks.make_image()
    with open_engine(open_network(earlier, size=(32, 48)), backend=backend, precision="f32") as engine:
        assert engine.infer(np.zeros((1, 32, 48, 3), np.uint8)).labels is None
    with open_engine(open_network(earlier), backend=backend, precision="f32") as engine:
        scores = engine.infer(image[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], small_networks.expected_scores(image, 3), atol=1e-4)


def test_the_names_do_not_import_torch() -> None:
    program = "import sys, stream_seg.zoo, stream_seg.network.network; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_has_its_files(name: str) -> None:
    assert (SHIPPED / NETWORKS[name]).is_file()
    assert open_network(name).name == name


def test_every_way_to_name_a_users_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_networks.write_network(tmp_path, MODEL, {"classes": small_networks.CLASSES})
    elsewhere = tmp_path / "sidecars" / "other.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(f"onnx: ../mine.onnx\nclasses: {json.dumps(small_networks.CLASSES)}\n")
    monkeypatch.chdir(tmp_path)
    spellings = [
        path,
        str(path),
        "mine.yaml",
        "sidecars/other.yaml",
        {"onnx": "mine.onnx", "classes": small_networks.CLASSES},
    ]
    networks = [open_network(source) for source in spellings]
    assert len(set(networks)) == 1
    assert (networks[0].name, networks[0].size, networks[0].int8) == ("mine", small_networks.SIZE, None)


def test_an_exported_network_beside_its_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in SHIPPED.glob("road*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert open_network(tmp_path / "road.onnx") == open_network(tmp_path / "road.json") == open_network("road")
    int8, sidecar = (tmp_path / "road_int8.onnx").read_bytes(), json.loads((tmp_path / "road.json").read_text())
    (tmp_path / "road_int8.onnx").write_bytes(MODEL.SerializeToString())
    assert "road_int8.onnx: not the file that road.json describes" in error_of(tmp_path / "road.onnx")
    (tmp_path / "road_int8.onnx").write_bytes(int8)
    del sidecar["int8"]
    (tmp_path / "road.json").write_text(json.dumps(sidecar))
    assert open_network(tmp_path / "road.onnx").int8 is None
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'road_int8.onnx'}: not used: road.json has no accuracy report of it; export it again"
    ]
    (tmp_path / "road_int8.onnx").unlink()
    assert open_network(tmp_path / "road.onnx").int8 is None
    (tmp_path / "road.onnx").write_bytes(MODEL.SerializeToString())
    assert "its SHA-256 differs" in error_of(tmp_path / "road.onnx")


def test_an_export_with_external_weights_is_refused(tmp_path: Path) -> None:
    """No digest covers weights in other files, which anybody may have changed."""
    import onnx

    network = open_network(small_networks.write_network(tmp_path, MODEL, {"classes": small_networks.CLASSES}))
    model = onnx.load_from_string(network.f32)
    weights = model.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    onnx.external_data_helper.set_external_data(weights, "weights.bin")
    weights.ClearField("raw_data")
    (tmp_path / "mine.yaml").unlink()
    path = save_network(replace(network, f32=model.SerializeToString()), tmp_path / "mine.onnx")
    assert "mine.onnx: has weights in other files, which mine.json does not describe" in error_of(path)


def test_errors_for_what_is_not_a_network(tmp_path: Path) -> None:
    assert not is_network("raod")
    assert error_of("raod").startswith("unknown network 'raod', did you mean road? (known: road)")
    assert "no such file" in error_of(tmp_path / "missing.onnx")
    assert "no side-car; write mine.yaml" in error_of(small_networks.write_network(tmp_path, MODEL, None))
    assert "onnx: is required" in error_of({"classes": ["a"]})
    assert "missing.onnx: no such file" in error_of({"onnx": str(tmp_path / "missing.onnx"), "classes": ["a"]})
    (tmp_path / "list.yaml").write_text("[1, 2]")
    assert "expected a mapping with the keys onnx, layout" in error_of(tmp_path / "list.yaml")
    (tmp_path / "twice.yaml").write_text("scale: 1\nscale: 2\n")
    assert "duplicate key" in error_of(tmp_path / "twice.yaml")


def test_a_sidecar_of_another_network_is_refused(tmp_path: Path) -> None:
    path = small_networks.write_network(tmp_path, MODEL, {"classes": small_networks.CLASSES, "onnx": "other.onnx"})
    assert error_of(path).endswith(
        f"mine.yaml: onnx: other.onnx is another file than {path}; open {tmp_path / 'mine.yaml'}, or remove the key"
    )
    for own in ("mine.onnx", f"../{tmp_path.name}/mine.onnx", str(path)):
        small_networks.write_network(tmp_path, MODEL, {"classes": small_networks.CLASSES, "onnx": own})
        assert open_network(path).name == "mine"


@pytest.mark.parametrize("other", ["mine.yml", "mine.json"])
def test_two_sidecars_of_one_network_are_refused(tmp_path: Path, other: str) -> None:
    path = small_networks.write_network(tmp_path, MODEL, {"classes": small_networks.CLASSES})
    (tmp_path / other).write_text("{}")
    assert error_of(path) == f"{path}: described by mine.yaml and {other}; open one of them, or remove one"
    assert open_network(tmp_path / "mine.yaml").name == "mine"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"color": "rgb"}, r"unknown key 'color', did you mean colour\? \(known: onnx, layout, colour, size"),
        (
            {"heads": [{"output": "out", "chanels": ["a"]}]},
            r"heads\.0: unknown key 'chanels', did you mean channels\? \(known: out",
        ),
        ({"mean": [0.5, 0.5]}, r"mean: expected list of 3, each a number, got \[0\.5, 0\.5\]"),
        ({"std": [0.5, 0.5, 0]}, r"std\.2: expected number > 0, got 0"),
        ({"layout": "chw"}, "layout: expected nchw or nhwc, got 'chw'"),
        ({"classes": ["a", "a"]}, "classes: a named twice"),
        ({"classes": []}, r"classes: expected list of 1 to 255, each a text, got \[\]"),
        (
            {"palette": "cityscape"},
            r"palette: unknown palette 'cityscape', did you mean cityscapes\? \(known: distinct, camvid",
        ),
        ({"palette": [[1, 2, 3]]}, "palette: 1 colours for 3 classes"),
        ({"scale": "big"}, "scale: expected number > 0, got 'big'"),
        ({"scale": float("inf")}, "scale: expected a finite number, got 'Infinity'"),
    ],
)
def test_errors_in_a_sidecar(tmp_path: Path, keys: dict[str, Any], reason: str) -> None:
    path = small_networks.write_network(tmp_path, MODEL, {"classes": small_networks.CLASSES, **keys})
    with pytest.raises(ConfigError, match=rf"mine\.yaml: .*{reason}") as caught:
        open_network(path)
    assert "\n" not in str(caught.value)


def test_a_sidecar_without_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"classes: is required$"):
        open_network(small_networks.write_network(tmp_path, MODEL, {"scale": 1}))


def test_a_sidecar_that_is_a_folder(tmp_path: Path) -> None:
    path = small_networks.write_network(tmp_path, MODEL, None)
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(NetworkError, match="no side-car"):
        open_network(path)


def test_colours_by_name_by_index_and_by_default() -> None:
    assert make_classes(["road", "sky"], "camvid", where="").colours == ((128, 64, 128), (128, 128, 128))
    assert make_classes([f"class {i}" for i in range(19)], "cityscapes", where="").colours == CITYSCAPES.colours
    many = make_classes(["background", *(f"class {i}" for i in range(30))], None, where="").colours
    assert many[0] == (0, 0, 0)
    assert len(set(many)) == 31
    assert make_classes(["sky", "car"], None, where="").colours == (SYNTHETIC.colours[0], SYNTHETIC.colours[8])


def test_classes_that_a_palette_does_not_know_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        classes = make_classes(["car", "lane", "kerb"], "camvid", where="lanes.yaml")
    assert classes.colours[0] == CAMVID.colours[CAMVID.index("car")]
    assert len(set(classes.colours)) == 3
    assert caplog.messages == ["lanes.yaml: palette: camvid has no colours for lane, kerb: distinct ones"]
