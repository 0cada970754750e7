"""Building engines: the requested precision if it stays accurate, else the next one, with the reason in one line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from stream_seg.backends.choose import Target
from stream_seg.backends.engine import Device, prune_onnx
from stream_seg.backends.tensorrt.api import Plan
from stream_seg.backends.tensorrt.run import Execution
from stream_seg.engines.build import BuildResult, build_engine, build_for_targets
from stream_seg.engines.build_one import Reporter
from stream_seg.engines.cache import read_engine, read_entries
from stream_seg.engines.cache_entry import make_entry
from stream_seg.engines.cache_write import lock_key, store_engine
from stream_seg.engines.open import open_engine
from stream_seg.engines.recipe import EngineRecipe
from stream_seg.errors import ConfigError, NetworkError, StreamSegError
from stream_seg.network.network import open_network
from tests.support import simulated_cuda, small_networks

SILENT = Reporter(lambda _: None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), small_networks.make_image(seed=seed))
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    model = small_networks.make_model(outputs={"out": 3})
    return small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache that this test's builds and engines use."""
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


def make_recipe(network: Path, **keys: Any) -> EngineRecipe:
    limit = {} if "labels" in keys or keys.get("precision") == "f32" else {"agreement": 90.0}
    return EngineRecipe(network=str(network), **({"backend": "openvino"} | limit | keys))


def write_labels(folder: Path, images: Path) -> Path:
    """Write a label map of class 0 for each image. Return their folder."""
    folder.mkdir()
    for path in images.glob("*.png"):
        cv2.imwrite(str(folder / path.name), np.zeros(small_networks.SIZE, np.uint8))
    return folder


def opened_precision(network: Path, backend: str) -> str:
    """Return the precision of the engine that a run would use."""
    with open_engine(open_network(network), backend=backend) as engine:
        return engine.spec.info.precision


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_int8_is_built_once_and_used(
    backend: str, mine: Path, images: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe(mine, backend=backend, precision="int8", calibrate=str(images))
    result = build_engine(recipe, folder=folder, report=SILENT)
    assert (result.fresh, result.entry.key.precision, result.entry.refused) == (True, "int8", ())
    gate = result.entry.gate
    assert gate is not None
    assert (gate["calibration"]["images"], gate["held_back"]["images"]) == (6, 2)
    assert 0.9 <= gate["held_back"]["agreement"] <= 1
    assert not build_engine(recipe, folder=folder, report=SILENT).fresh
    with caplog.at_level(logging.INFO), open_engine(open_network(mine), backend=backend) as engine:
        assert engine.spec.info.precision == "int8"
        scores = engine.infer(small_networks.make_image()[None]).scores
    assert scores is not None
    expected = small_networks.expected_scores(small_networks.make_image(), 3)
    assert 0 < np.abs(scores[0] - expected).max() < 0.2, "int8: close, and not the same"
    assert any("int8 built" in record.message and "as f32" in record.message for record in caplog.records)
    with open_engine(open_network(mine), backend=backend, precision="f32") as engine:
        scores = engine.infer(small_networks.make_image()[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], expected, atol=1e-4)


def test_beyond_the_limit_the_next_precision_is_built(mine: Path, images: Path, folder: Path) -> None:
    lines: list[str] = []
    recipe = make_recipe(mine, backend="onnxruntime", precision="int8", calibrate=str(images), agreement=100)
    result = build_engine(recipe, folder=folder, report=Reporter(lines.append))
    assert result.entry.key.precision == "f32"
    assert result.entry.gate is None
    assert result.entry.refused[0].startswith("int8 (preset performance) on onnxruntime: calibration: 9")
    line, other = (line for line in lines if "refused" in line)
    assert line.startswith("mine: int8 (preset performance) on onnxruntime refused: calibration: 9")
    assert line.endswith("; trying int8 (preset mixed) on onnxruntime")
    assert other.endswith("; trying f32 on onnxruntime")
    assert read_entries(folder) == ([result.entry], {}), "the refused engine is not stored"
    assert opened_precision(mine, "onnxruntime") == "f32"


def test_labels_decide_if_there_are_any(mine: Path, images: Path, folder: Path, tmp_path: Path) -> None:
    """The truth is the output of the network in f32, so every difference is a loss."""
    labels = tmp_path / "truth"
    labels.mkdir()
    with open_engine(open_network(mine), backend="onnxruntime", precision="f32") as engine:
        for path in images.glob("*.png"):
            scores = engine.infer(np.asarray(cv2.imread(str(path)), np.uint8)[None]).scores
            assert scores is not None
            full = cv2.resize(np.moveaxis(scores[0], 0, 2), small_networks.SIZE[::-1], interpolation=cv2.INTER_LINEAR)
            cv2.imwrite(str(labels / path.name), full.argmax(2).astype(np.uint8))
    keys = {"backend": "onnxruntime", "precision": "int8", "calibrate": str(images), "labels": labels}
    strict = build_engine(make_recipe(mine, **keys, miou_loss=0.0), folder=folder, report=SILENT)
    assert strict.entry.key.precision == "f32"
    assert "mIoU" in strict.entry.refused[0]
    lax = build_engine(make_recipe(mine, **keys, miou_loss=20.0), folder=folder, report=SILENT)
    assert lax.entry.key.precision == "int8"
    assert lax.entry.gate is not None
    loss = lax.entry.gate["calibration"]["miou_loss"]
    assert loss is not None
    assert 0 < loss < 20
    assert "mIoU" in lax.entry.accuracy


def test_other_limits_are_checked_again(mine: Path, images: Path, folder: Path) -> None:
    keys: dict[str, Any] = {"backend": "onnxruntime", "precision": "int8", "calibrate": str(images)}
    build_engine(make_recipe(mine, **keys), folder=folder, report=SILENT)
    lines: list[str] = []
    strict = build_engine(make_recipe(mine, **keys, agreement=100), folder=folder, report=Reporter(lines.append))
    assert any("compared with other limits" in line for line in lines)
    assert strict.entry.key.precision == "f32"
    assert read_entries(folder) == ([strict.entry], {}), "an engine that is refused now is removed"
    assert opened_precision(mine, "onnxruntime") == "f32"


def test_corrected_labels_are_compared_again(mine: Path, images: Path, folder: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "truth", images)
    recipe = make_recipe(mine, precision="int8", calibrate=str(images), labels=labels, miou_loss=100.0)
    first = build_engine(recipe, folder=folder, report=SILENT)
    assert not build_engine(recipe, folder=folder, report=SILENT).fresh
    cv2.imwrite(str(labels / "3.png"), np.ones(small_networks.SIZE, np.uint8))
    lines: list[str] = []
    second = build_engine(recipe, folder=folder, report=Reporter(lines.append))
    assert second.fresh
    assert any("compared with other limits or images; rebuilding it" in line for line in lines)
    assert first.entry.gate is not None
    assert second.entry.gate is not None
    assert first.entry.gate["held_back"]["miou_f32"] != second.entry.gate["held_back"]["miou_f32"]


def test_a_flipped_byte_is_rebuilt_and_never_loaded(
    mine: Path, images: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe(mine, precision="int8", calibrate=str(images))
    entry = build_engine(recipe, folder=folder, report=SILENT).entry
    content = (folder / entry.file).read_bytes()
    (folder / entry.file).write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    assert opened_precision(mine, "openvino") != "int8"
    [line] = [record.message for record in caplog.records]
    assert line.startswith(f"engine {entry.name}: not loaded: its SHA-256")
    lines: list[str] = []
    assert build_engine(recipe, folder=folder, report=Reporter(lines.append)).fresh
    assert lines[0].endswith("rebuilding it")
    assert (folder / entry.file).read_bytes() == content
    assert opened_precision(mine, "openvino") == "int8", "the control"


def test_an_engine_that_the_backend_cannot_open_is_skipped(
    mine: Path, images: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Intact, and yet unusable for OpenVINO: like a TensorRT plan after a change of the driver."""
    recipe = make_recipe(mine, precision="int8", calibrate=str(images))
    entry = build_engine(recipe, folder=folder, report=SILENT).entry
    with lock_key(folder, entry.key):
        invalid = make_entry("mine", entry.key, b"no ONNX", suffix=".onnx", gate=entry.gate)
        store_engine(folder, invalid, b"no ONNX")
    assert opened_precision(mine, "openvino") != "int8"
    [line] = [record.message for record in caplog.records]
    assert line.startswith(f"engine {entry.name}: not loaded: mine: OpenVINO cannot compile it")
    assert line.endswith("stream-seg engines build rebuilds it")
    assert "\n" not in line


def test_an_engine_of_another_version_is_not_loaded(
    mine: Path, images: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe(mine, precision="int8", calibrate=str(images))
    entry = build_engine(recipe, folder=folder, report=SILENT).entry
    older = entry.model_copy(update={"key": entry.key.model_copy(update={"version": "1999.0"})})
    (folder / entry.file).rename(folder / entry.file.replace(entry.name, older.name))
    (folder / f"{entry.name}.json").unlink()
    older = older.model_copy(update={"file": entry.file.replace(entry.name, older.name)})
    (folder / f"{older.name}.json").write_text(older.model_dump_json())
    (folder / f"{older.name}.json").chmod(0o600)
    assert opened_precision(mine, "openvino") != "int8"
    assert any("not loaded: built with version 1999.0" in record.message for record in caplog.records)
    lines: list[str] = []
    assert build_engine(recipe, folder=folder, report=Reporter(lines.append)).fresh
    assert any("built with version 1999.0" in line and "rebuilding it" in line for line in lines)


def test_a_cache_that_others_can_write_to_is_not_used(
    mine: Path, images: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_engine(make_recipe(mine, precision="int8", calibrate=str(images)), folder=folder, report=SILENT)
    folder.chmod(0o777)
    assert opened_precision(mine, "openvino") != "int8"
    assert ["is writable by others" in record.message for record in caplog.records] == [True]


def test_bf16_is_compared_on_the_synthetic_drive_without_images(mine: Path, folder: Path) -> None:
    recipe = make_recipe(mine, backend="torch", precision="bf16", agreement=50)
    entry = build_engine(recipe, folder=folder, report=SILENT).entry
    assert entry.key.precision == "bf16"
    assert entry.gate is not None
    assert entry.gate["source"] == "the synthetic drive"


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"precision": "int8"}, ConfigError, "mine has no int8 form; create it with --calibrate DIR or VIDEO"),
        ({"precision": "int4"}, ConfigError, "precision 'int4': openvino on .* offers int8"),
        ({"labels": "x"}, ConfigError, "labels: needs calibrate, the images that the labels are for"),
        ({"backend": "tensorflow"}, ConfigError, r"unknown backend 'tensorflow', .*known: auto, cpu, gpu, tensorrt"),
        ({"compute_capability": "8.9"}, ConfigError, "openvino only builds for this machine"),
        ({"size": (8, 8)}, ConfigError, "size: .8, 8. does not fit"),
    ],
)
def test_a_recipe_that_cannot_be_built_is_one_line(
    mine: Path, folder: Path, keys: dict[str, Any], error: type[StreamSegError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        build_engine(make_recipe(mine, **keys), folder=folder, report=SILENT)
    assert "\n" not in str(caught.value)
    assert read_entries(folder) == ([], {})


def test_a_network_is_built_at_another_size(tmp_path: Path, folder: Path) -> None:
    model = small_networks.make_model(outputs={"out": 3}, size=("h", "w"))
    mine = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    result = build_engine(make_recipe(mine, precision="f32", size=(32, 48)), folder=folder, report=SILENT)
    assert result.entry.key.shape == (1, 32, 48, 3)
    lines: list[str] = []
    recipe = make_recipe(Path("road"), precision="int8", size=(64, 96))
    result = build_engine(recipe, folder=folder, report=Reporter(lines.append))
    assert result.entry.key.shape == (1, 64, 96, 3)
    assert any("comparing int8 on openvino with f32" in line for line in lines), (
        "the shipped report is for another size"
    )
    with pytest.raises(NetworkError, match=r"road: takes images of 384x640 .*; 32x50 does not fit its strides"):
        open_network("road", size=(32, 50))


def test_a_plan_for_a_gpu_that_is_not_here(mine: Path, images: Path, folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    keys: dict[str, Any] = {"backend": "auto", "compute_capability": "8.9", "calibrate": str(images)}
    steps: list[str] = []
    report = Reporter(lambda _: None, steps.append)
    entry = build_engine(make_recipe(mine, **keys), folder=folder, report=report).entry
    key = entry.key
    assert (key.backend, key.device, key.compute_capability, key.shape[0]) == ("tensorrt", "any", "8.9", 1)
    assert key.precision == "int8"
    assert entry.file.endswith(".plan")
    assert entry.gate is not None
    assert "onnxruntime" in entry.gate["computed_by"]
    assert any("TensorRT builds int8" in step for step in steps)
    assert not build_engine(make_recipe(mine, **keys), folder=folder, report=SILENT).fresh
    fp16 = build_engine(make_recipe(mine, **keys, precision="fp16"), folder=folder, report=SILENT)
    assert fp16.entry.key.precision == "fp16"


def test_a_missing_plan_is_built_compared_and_stored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `segment` does on a GPU that no plan was built for. The plan is real, the GPU that runs it is simulated."""
    pytest.importorskip("tensorrt_rtx")
    from stream_seg.backends.tensorrt import backend as tensorrt

    classes = {"classes": small_networks.CLASSES}
    model = small_networks.make_model(outputs={"out": 3}, batch="n")
    network = open_network(small_networks.write_network(tmp_path, model, classes))
    simulated_onnx = dict.fromkeys(("f32", "fp16"), prune_onnx(network.f32)[1])
    plans: dict[bytes, bytes] = {}
    build_plan = tensorrt.build_plan

    def build_elsewhere(graph: bytes, **keys: Any) -> bytes:
        plan = build_plan(graph, **{**keys, "compute_capability": "8.9"})
        plans[plan] = simulated_onnx[keys["precision"]]
        return plan

    def load_simulated(plan: bytes, *, output: str, **_: Any) -> Execution:
        cuda = simulated_cuda.Cuda()
        simulated = simulated_cuda.Plan(plans[plan], cuda, most=8, outputs={output: (3, 8, 12)})
        return Execution(cast(Plan, simulated), cuda, output=output)

    monkeypatch.setattr(tensorrt, "build_plan", build_elsewhere)
    monkeypatch.setattr(tensorrt, "find_gpu", lambda: ("a GPU", "8.9"))
    monkeypatch.setattr(tensorrt, "load_plan", load_simulated)
    device = Device("a GPU", ("int8", "fp16", "f32"), compute_capability="8.9")
    target = Target("tensorrt", "simulated 1", device)
    lines: list[str] = []
    report = Reporter(lines.append)
    recipe = EngineRecipe(network="mine", backend="tensorrt")
    entry = build_for_targets(network, [target], recipe, folder=folder, report=report).entry
    assert read_engine(folder, entry) in plans
    assert (entry.key.precision, entry.key.device, entry.key.shape) == ("fp16", "a GPU", (1, *small_networks.SIZE, 3))
    assert entry.gate is not None
    assert entry.gate["computed_by"] == "tensorrt on a GPU"
    assert entry.gate["held_back"]["agreement"] == 1
    assert lines[0] == "mine: TensorRT builds fp16 on a GPU of capability 8.9"
    count = len(plans)
    assert build_for_targets(network, [target], recipe, folder=folder, report=report) == BuildResult(entry, fresh=False)
    assert len(plans) == count, "the second time it comes from the cache"

    zeros = small_networks.make_model(outputs={"out": 3}, batch="n")
    zeros.graph.initializer[0].raw_data = bytes(len(zeros.graph.initializer[0].raw_data))
    wrong = open_network(small_networks.write_network(tmp_path, zeros, classes, name="zeros"))
    simulated_onnx["fp16"] = prune_onnx(wrong.f32)[1]
    (folder / f"{entry.name}.json").unlink()
    entry = build_for_targets(network, [target], recipe, folder=folder, report=report).entry
    assert entry.key.precision == "f32", "wrong labels are refused"
    assert entry.refused[0].startswith("fp16 on tensorrt: calibration: ")


def test_the_entry_is_json(mine: Path, images: Path, folder: Path) -> None:
    recipe = make_recipe(mine, backend="onnxruntime", precision="int8", calibrate=str(images))
    entry = build_engine(recipe, folder=folder, report=SILENT).entry
    content = json.loads((folder / f"{entry.name}.json").read_text())
    assert content["gate"]["limits"] == {"miou_loss": 0.5, "agreement": 0.9}
    assert content["gate"]["refused"] is None
    assert content["key"]["calibration"]
