"""Where networks come from, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stream_seg.datasets.palettes import CAMVID, CITYSCAPES
from stream_seg.errors import ConfigError, NetworkError, StreamSegError
from stream_seg.network.network import is_network, open_network, save_network
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.network.sidecar import coloured
from tests.support import small_networks as tiny

MODEL = tiny.network(outputs={"out": 3})


def refused(source: Any) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(StreamSegError) as told:
        open_network(source)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_the_road_network_is_shipped() -> None:
    road = open_network("road")
    assert (road.name, road.size, road.classes) == ("road", (384, 640), CAMVID)
    assert road.int8 is not None
    assert len(road.int8) < len(road.f32) <= 15e6
    assert road.int8_report is not None
    assert road.int8_report["refused"] is None
    assert road.int8_report["held_back"]["labelled"] > 0
    assert road.int8_report["held_back"]["miou_loss"] <= road.int8_report["limits"]["miou_loss"] == 0.5


def test_the_names_bring_no_torch_along() -> None:
    program = "import sys, stream_seg.zoo, stream_seg.network.network; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_has_its_files(name: str) -> None:
    assert (SHIPPED / NETWORKS[name]).is_file()
    assert open_network(name).name == name


def test_a_network_of_ones_own_in_all_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.write(tmp_path, MODEL, {"classes": tiny.CLASSES})
    elsewhere = tmp_path / "sidecars" / "other.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(f"onnx: ../mine.onnx\nclasses: {json.dumps(tiny.CLASSES)}\n")
    monkeypatch.chdir(tmp_path)
    spellings = [path, str(path), "mine.yaml", "sidecars/other.yaml", {"onnx": "mine.onnx", "classes": tiny.CLASSES}]
    networks = [open_network(source) for source in spellings]
    assert len(set(networks)) == 1
    assert (networks[0].name, networks[0].size, networks[0].int8) == ("mine", tiny.SIZE, None)


def test_an_exported_network_beside_its_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in SHIPPED.glob("road*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert open_network(tmp_path / "road.onnx") == open_network(tmp_path / "road.json") == open_network("road")
    whole, said = (tmp_path / "road_int8.onnx").read_bytes(), json.loads((tmp_path / "road.json").read_text())
    (tmp_path / "road_int8.onnx").write_bytes(MODEL.SerializeToString())
    assert "road_int8.onnx: not the file that road.json describes" in refused(tmp_path / "road.onnx")
    (tmp_path / "road_int8.onnx").write_bytes(whole)
    del said["int8"]
    (tmp_path / "road.json").write_text(json.dumps(said))
    assert open_network(tmp_path / "road.onnx").int8 is None
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'road_int8.onnx'}: left out: road.json has no accuracy report of it; export it again"
    ]
    (tmp_path / "road_int8.onnx").unlink()
    assert open_network(tmp_path / "road.onnx").int8 is None
    (tmp_path / "road.onnx").write_bytes(MODEL.SerializeToString())
    assert "its SHA-256 differs" in refused(tmp_path / "road.onnx")


def test_an_export_has_all_of_its_weights(tmp_path: Path) -> None:
    """What lies in other files is in no digest, and may be anybody's."""
    import onnx

    network = open_network(tiny.write(tmp_path, MODEL, {"classes": tiny.CLASSES}))
    model = onnx.load_from_string(network.f32)
    weights = model.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    onnx.external_data_helper.set_external_data(weights, "weights.bin")
    weights.ClearField("raw_data")
    (tmp_path / "mine.yaml").unlink()
    path = save_network(replace(network, f32=model.SerializeToString()), tmp_path / "mine.onnx")
    assert "mine.onnx: has weights in other files, which mine.json does not describe" in refused(path)


def test_what_is_no_network(tmp_path: Path) -> None:
    assert not is_network("raod")
    assert refused("raod").startswith("unknown network 'raod'; known: road")
    assert "no such file" in refused(tmp_path / "missing.onnx")
    assert "no side-car; write mine.yaml" in refused(tiny.write(tmp_path, MODEL, None))
    assert "onnx: is required" in refused({"classes": ["a"]})
    assert "missing.onnx: no such file" in refused({"onnx": str(tmp_path / "missing.onnx"), "classes": ["a"]})
    (tmp_path / "list.yaml").write_text("[1, 2]")
    assert "expected a mapping with the keys onnx, layout" in refused(tmp_path / "list.yaml")
    (tmp_path / "twice.yaml").write_text("scale: 1\nscale: 2\n")
    assert "duplicate key" in refused(tmp_path / "twice.yaml")


@pytest.mark.parametrize(
    ("said", "reason"),
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
            r"palette: unknown palette 'cityscape', did you mean cityscapes\? \(known: camvid",
        ),
        ({"palette": [[1, 2, 3]]}, "palette: 1 colours for 3 classes"),
        ({"palette": "voc"}, "palette: voc has 21 classes, `classes` names 3"),
        ({"scale": "big"}, "scale: expected number > 0, got 'big'"),
        ({"scale": float("inf")}, "scale: expected a finite number, got 'Infinity'"),
    ],
)
def test_a_wrong_sidecar(tmp_path: Path, said: dict[str, Any], reason: str) -> None:
    path = tiny.write(tmp_path, MODEL, {"classes": tiny.CLASSES, **said})
    with pytest.raises(ConfigError, match=rf"mine\.yaml: .*{reason}") as told:
        open_network(path)
    assert "\n" not in str(told.value)


def test_a_sidecar_without_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"classes: is required$"):
        open_network(tiny.write(tmp_path, MODEL, {"scale": 1}))


def test_a_sidecar_that_is_a_folder(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, MODEL, None)
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(NetworkError, match="no side-car"):
        open_network(path)


def test_colours_by_name_by_place_and_by_default() -> None:
    assert coloured(["road", "sky"], "camvid", where="").colours == ((128, 64, 128), (128, 128, 128))
    assert coloured([f"class {i}" for i in range(19)], "cityscapes", where="").colours == CITYSCAPES.colours
    many = coloured(["background", *(f"class {i}" for i in range(30))], None, where="").colours
    assert many[0] == (0, 0, 0)
    assert len(set(many)) == 31
