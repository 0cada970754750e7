"""Building engines: the lowest precision that stays true, said in a line where it is not the one asked for."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from stream_seg.backends.device import Target
from stream_seg.backends.engine import cheapest
from stream_seg.backends.tensorrt.cuda import Plan as TensorRTPlan
from stream_seg.backends.tensorrt.run import Execution
from stream_seg.engines.build import EngineRecipe, build, plan_for
from stream_seg.engines.cache import building, entries, store
from stream_seg.engines.cache_entry import described
from stream_seg.engines.compare import Say
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError, StreamSegError
from stream_seg.network.network import Network, open_network
from tests.support import simulated_cuda as simulated
from tests.support import small_networks as tiny


class Told(list[str]):
    """What a build said, line by line."""

    @property
    def say(self) -> Say:
        return Say(self.append)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), tiny.picture(seed=seed))
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tiny.write(tmp_path, tiny.network(outputs={"out": 3}), {"classes": tiny.CLASSES})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache that this test's builds and engines use."""
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


def recipe(network: Path, **keys: Any) -> EngineRecipe:
    return EngineRecipe(network=str(network), **({"backend": "openvino", "agreement": 90.0} | keys))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_int8_is_built_once_and_taken(
    backend: str, mine: Path, pictures: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = recipe(mine, backend=backend, precision="int8", calibrate=str(pictures))
    built = build(wanted, folder=folder, say=Told().say)
    assert (built.fresh, built.entry.key.precision, built.entry.refused) == (True, "int8", ())
    gate = built.entry.gate
    assert gate is not None
    assert (gate["calibration"]["pictures"], gate["held_back"]["pictures"]) == (6, 2)
    assert 0.9 <= gate["held_back"]["agreement"] <= 1
    assert not build(wanted, folder=folder, say=Told().say).fresh
    with caplog.at_level(logging.INFO), open_engine(open_network(mine), backend=backend) as engine:
        assert engine.spec.info.precision == "int8"
        scores = engine.infer(tiny.picture()[None]).scores
    assert scores is not None
    expected = tiny.said(tiny.picture(), 3)
    assert 0 < np.abs(scores[0] - expected).max() < 0.2, "int8: near, and not the same"
    assert any("int8 built" in record.message and "as f32" in record.message for record in caplog.records)
    with open_engine(open_network(mine), backend=backend, precision="f32") as engine:
        scores = engine.infer(tiny.picture()[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], expected, atol=1e-4)


def test_past_the_limit_the_next_precision_is_taken(mine: Path, pictures: Path, folder: Path) -> None:
    told = Told()
    wanted = recipe(mine, backend="onnxruntime", precision="int8", calibrate=str(pictures), agreement=100)
    built = build(wanted, folder=folder, say=told.say)
    assert built.entry.key.precision == "f32"
    assert built.entry.gate is None
    assert built.entry.refused[0].startswith("int8 calibration: 9")
    [line] = [line for line in told if "refused" in line]
    assert line.startswith("mine: int8 refused: calibration: 9")
    assert line.endswith("trying the next precision")
    assert [entry for _, entry in entries(folder)] == [built.entry], "what was refused is not kept"
    with open_engine(open_network(mine), backend="onnxruntime") as engine:
        assert engine.spec.info.precision == "f32"


def test_labels_decide_where_there_are_some(mine: Path, pictures: Path, folder: Path, tmp_path: Path) -> None:
    """The truth here is what the network says, so that every difference is a loss."""
    annotations = tmp_path / "truth"
    annotations.mkdir()
    with open_engine(open_network(mine), backend="onnxruntime", precision="f32") as engine:
        for path in pictures.glob("*.png"):
            scores = engine.infer(np.asarray(cv2.imread(str(path)), np.uint8)[None]).scores
            assert scores is not None
            truth = cv2.resize(np.moveaxis(scores[0], 0, 2), tiny.SIZE[::-1], interpolation=cv2.INTER_LINEAR).argmax(2)
            cv2.imwrite(str(annotations / path.name), truth.astype(np.uint8))
    keys = {"backend": "onnxruntime", "precision": "int8", "calibrate": str(pictures), "labels": annotations}
    strict = build(recipe(mine, **keys, miou_loss=0.0), folder=folder, say=Told().say)
    assert strict.entry.key.precision == "f32"
    assert "mIoU" in strict.entry.refused[0]
    lax = build(recipe(mine, **keys, miou_loss=20.0), folder=folder, say=Told().say)
    assert lax.entry.key.precision == "int8"
    assert lax.entry.gate is not None
    assert 0 < lax.entry.gate["calibration"]["miou_loss"] < 20
    assert "mIoU" in lax.entry.judged


def test_other_limits_are_judged_again(mine: Path, pictures: Path, folder: Path) -> None:
    keys: dict[str, Any] = {"backend": "onnxruntime", "precision": "int8", "calibrate": str(pictures)}
    build(recipe(mine, **keys), folder=folder, say=Told().say)
    told = Told()
    strict = build(recipe(mine, **keys, agreement=100), folder=folder, say=told.say)
    assert any("judged by other limits" in line for line in told)
    assert strict.entry.key.precision == "f32"
    assert [entry for _, entry in entries(folder)] == [strict.entry], "what is refused now is not kept from before"
    with open_engine(open_network(mine), backend="onnxruntime") as engine:
        assert engine.spec.info.precision == "f32"


def test_corrected_labels_are_judged_again(mine: Path, pictures: Path, folder: Path, tmp_path: Path) -> None:
    annotations = tmp_path / "truth"
    annotations.mkdir()
    for path in pictures.glob("*.png"):
        cv2.imwrite(str(annotations / path.name), np.zeros(tiny.SIZE, np.uint8))
    keys: dict[str, Any] = {"precision": "int8", "calibrate": str(pictures), "labels": annotations, "miou_loss": 100.0}
    first = build(recipe(mine, **keys), folder=folder, say=Told().say)
    assert not build(recipe(mine, **keys), folder=folder, say=Told().say).fresh
    cv2.imwrite(str(annotations / "3.png"), np.ones(tiny.SIZE, np.uint8))
    told = Told()
    again = build(recipe(mine, **keys), folder=folder, say=told.say)
    assert again.fresh
    assert any("judged by other limits or pictures; built again" in line for line in told)
    assert first.entry.gate is not None
    assert again.entry.gate is not None
    assert first.entry.gate["held_back"]["miou_f32"] != again.entry.gate["held_back"]["miou_f32"]


def test_a_flipped_byte_is_built_again_and_never_loaded(
    mine: Path, pictures: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = recipe(mine, precision="int8", calibrate=str(pictures))
    entry = build(wanted, folder=folder, say=Told().say).entry
    whole = (folder / entry.file).read_bytes()
    (folder / entry.file).write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    with open_engine(open_network(mine), backend="openvino") as engine:
        assert engine.spec.info.precision != "int8"
    [line] = [record.message for record in caplog.records]
    assert line.startswith(f"engine {entry.name}: not loaded: its SHA-256")
    told = Told()
    assert build(wanted, folder=folder, say=told.say).fresh
    assert told[0].endswith("building it again")
    assert (folder / entry.file).read_bytes() == whole
    with open_engine(open_network(mine), backend="openvino") as engine:
        assert engine.spec.info.precision == "int8", "the control"


def test_an_engine_that_the_backend_cannot_open_is_left_out(
    mine: Path, pictures: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole, ours, and yet nothing that OpenVINO takes: such as a plan after its driver was changed."""
    entry = build(recipe(mine, precision="int8", calibrate=str(pictures)), folder=folder, say=Told().say).entry
    with building(folder, entry.key):
        store(folder, described("mine", entry.key, b"no ONNX", suffix=".onnx", gate=entry.gate), b"no ONNX")
    with open_engine(open_network(mine), backend="openvino") as engine:
        assert engine.spec.info.precision != "int8"
    [line] = [record.message for record in caplog.records]
    assert line.startswith(f"engine {entry.name}: not loaded: mine: OpenVINO cannot compile it")
    assert line.endswith("stream-seg engines build builds it again")
    assert "\n" not in line


def test_an_engine_of_another_version_is_not_loaded(
    mine: Path, pictures: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = recipe(mine, precision="int8", calibrate=str(pictures))
    entry = build(wanted, folder=folder, say=Told().say).entry
    older = entry.model_copy(update={"key": entry.key.model_copy(update={"version": "1999.0"})})
    (folder / entry.file).rename(folder / entry.file.replace(entry.name, older.name))
    (folder / f"{entry.name}.json").unlink()
    older = older.model_copy(update={"file": entry.file.replace(entry.name, older.name)})
    (folder / f"{older.name}.json").write_text(older.model_dump_json())
    (folder / f"{older.name}.json").chmod(0o600)
    with open_engine(open_network(mine), backend="openvino") as engine:
        assert engine.spec.info.precision != "int8"
    assert any("not loaded: built with 1999.0" in record.message for record in caplog.records)
    told = Told()
    assert build(wanted, folder=folder, say=told.say).fresh
    assert any("built with 1999.0" in line and "built again" in line for line in told)


def test_a_cache_that_others_may_write_to_is_not_used(
    mine: Path, pictures: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(recipe(mine, precision="int8", calibrate=str(pictures)), folder=folder, say=Told().say)
    folder.chmod(0o777)
    with open_engine(open_network(mine), backend="openvino") as engine:
        assert engine.spec.info.precision != "int8"
    assert ["may be written by others" in record.message for record in caplog.records] == [True]


def test_bf16_is_compared_on_the_drawn_drive_without_pictures(mine: Path, folder: Path) -> None:
    built = build(recipe(mine, backend="torch", precision="bf16", agreement=50), folder=folder, say=Told().say)
    assert built.entry.key.precision == "bf16"
    assert built.entry.gate is not None
    assert built.entry.gate["source"] == "the drawn drive"


@pytest.mark.parametrize(
    ("keys", "error", "said"),
    [
        ({"precision": "int8"}, ConfigError, "mine has no int8 form yet; --calibrate DIR or VIDEO makes one"),
        ({"precision": "int4"}, ConfigError, "precision 'int4': openvino has int8"),
        ({"labels": "x"}, ConfigError, "labels: belong to the pictures of --calibrate"),
        ({"backend": "tensorflow"}, ConfigError, "unknown backend 'tensorflow'; known: auto, tensorrt"),
        ({"compute_capability": "8.9"}, ConfigError, "openvino builds for what is here"),
        ({"size": (8, 8)}, ConfigError, "size: .8, 8. is not to be had"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    mine: Path, folder: Path, keys: dict[str, Any], error: type[StreamSegError], said: str
) -> None:
    with pytest.raises(error, match=said) as refused:
        build(recipe(mine, **keys), folder=folder, say=Told().say)
    assert "\n" not in str(refused.value)
    assert list(entries(folder)) == []


def test_a_network_is_built_at_another_size_where_it_computes_there(tmp_path: Path, folder: Path) -> None:
    mine = tiny.write(tmp_path, tiny.network(outputs={"out": 3}, size=("h", "w")), {"classes": tiny.CLASSES})
    built = build(recipe(mine, precision="f32", size=(32, 48)), folder=folder, say=Told().say)
    assert built.entry.key.shape == (1, 32, 48, 3)
    told = Told()
    small = build(recipe(Path("road"), precision="int8", size=(64, 96)), folder=folder, say=told.say)
    assert small.entry.key.shape == (1, 64, 96, 3)
    assert any("comparing int8 with f32" in line for line in told), "it was judged at another size alone"
    with pytest.raises(NetworkError, match=r"road: takes pictures of 384x640 .*; 32x50 does not fit its strides"):
        open_network("road", size=(32, 50))


def test_a_plan_for_a_gpu_that_is_not_here(mine: Path, pictures: Path, folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    keys: dict[str, Any] = {"backend": "auto", "compute_capability": "8.9", "calibrate": str(pictures), "batch": 2}
    steps: list[str] = []
    built = build(recipe(mine, **keys), folder=folder, say=Say(lambda _: None, steps.append))
    key = built.entry.key
    assert (key.backend, key.device, key.compute_capability, key.shape[0]) == ("tensorrt", "any", "8.9", 2)
    assert key.precision == "int8"
    assert built.entry.file.endswith(".plan")
    assert built.entry.gate is not None
    assert "onnxruntime" in built.entry.gate["computed_by"]
    assert any("TensorRT builds int8" in step for step in steps)
    assert not build(recipe(mine, **keys), folder=folder, say=Told().say).fresh
    fp16 = build(recipe(mine, **keys, precision="fp16"), folder=folder, say=Told().say)
    assert fp16.entry.key.precision == "fp16"


def test_a_plan_that_is_missing_is_built_judged_and_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `segment` does on a GPU whose plan nobody built. The plan is real, only the GPU that runs it is not."""
    pytest.importorskip("tensorrt_rtx")
    from stream_seg.backends.tensorrt import backend as tensorrt
    from stream_seg.backends.tensorrt import build as tensorrt_build

    model = tiny.network(outputs={"out": 3}, batch="n")
    network = open_network(tiny.write(tmp_path, model, {"classes": tiny.CLASSES}))
    onnx = {"f32": cheapest(network.f32)[1], "fp16": cheapest(network.f32)[1]}
    plans: dict[bytes, bytes] = {}
    built = tensorrt_build.build

    def elsewhere(graph: bytes, **keys: Any) -> bytes:
        plan = built(graph, **{**keys, "compute_capability": "8.9"})
        plans[plan] = onnx[keys["precision"]]
        return plan

    def execution(plan: bytes, *, output: str, **_: Any) -> Execution:
        cuda = simulated.Cuda()
        here = simulated.Plan(plans[plan], cuda, most=8, outputs={output: (3, 8, 12)})
        return Execution(cast(TensorRTPlan, here), cuda, outputs=(output,))

    monkeypatch.setattr(tensorrt_build, "build", elsewhere)
    monkeypatch.setattr(tensorrt, "gpu", lambda: ("a GPU", "8.9"))
    monkeypatch.setattr(tensorrt, "open_execution", execution)
    target = Target("tensorrt", "simulated 1", "a GPU", ("int8", "fp16", "f32"), "8.9", suffix=".plan")
    told = Told()
    entry, plan = plan_for(network, target, folder=folder, precision="auto", say=told.say)
    assert plan in plans
    assert (entry.key.precision, entry.key.device, entry.key.shape) == ("fp16", "a GPU", (8, *tiny.SIZE, 3))
    assert entry.gate is not None
    assert entry.gate["computed_by"] == "tensorrt on a GPU"
    assert entry.gate["held_back"]["agreement"] == 1
    assert [line.partition(" for ")[0] for line in told][:1] == ["mine: TensorRT builds fp16"]
    count = len(plans)
    assert plan_for(network, target, folder=folder, precision="auto", say=told.say) == (entry, plan)
    assert len(plans) == count, "the second time it comes from the cache"

    zeros = tiny.network(outputs={"out": 3}, batch="n")
    zeros.graph.initializer[0].raw_data = bytes(len(zeros.graph.initializer[0].raw_data))
    wrong = open_network(tiny.write(tmp_path, zeros, {"classes": tiny.CLASSES}, name="zeros"))
    onnx["fp16"] = cheapest(wrong.f32)[1]
    (folder / f"{entry.name}.json").unlink()
    entry, _ = plan_for(network, target, folder=folder, precision="auto", say=told.say)
    assert entry.key.precision == "f32", "wrong masks are refused"
    assert entry.refused[0].startswith("fp16 calibration: ")


def test_auto_goes_on_to_the_next_backend(
    mine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stream_seg.backends import registry as table

    def broken(network: Network, *, precision: str, threads: int) -> None:
        raise ImportError("libopenvino.so: no such file")

    first = table.Backend("openvino", "pip install openvino", broken)  # type: ignore[arg-type]
    monkeypatch.setattr(table, "BACKENDS", {"openvino": first, "onnxruntime": table.BACKENDS["onnxruntime"]})
    with caplog.at_level(logging.INFO), open_engine(open_network(mine)) as engine:
        assert engine.spec.info.backend == "onnxruntime"
    said = [record.message for record in caplog.records]
    assert "openvino does not load (libopenvino.so: no such file): pip install openvino" in said[0]
    assert "onnxruntime (without openvino)" in said[1]
    with pytest.raises(NetworkError, match="does not load"):
        open_engine(open_network(mine), backend="openvino")


def test_the_report_is_json(mine: Path, pictures: Path, folder: Path) -> None:
    entry = build(
        recipe(mine, backend="onnxruntime", precision="int8", calibrate=str(pictures)), folder=folder, say=Told().say
    ).entry
    said = json.loads((folder / f"{entry.name}.json").read_text())
    assert said["gate"]["limits"] == {"miou_loss": 0.5, "agreement": 0.9}
    assert said["gate"]["refused"] is None
    assert said["key"]["calibration"]
