"""The presets and backends that are tried before int8 is given up, and keys of a recipe without effect."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.backends.choose import find_target, open_backend
from stream_seg.backends.engine import Device, Engine, Images, Result
from stream_seg.backends.registry import BACKENDS
from stream_seg.engines import build_one
from stream_seg.engines.build import BuildResult, build_engine
from stream_seg.engines.build_one import Reporter
from stream_seg.engines.calibration import QuantizeSettings, quantize, sample_source
from stream_seg.engines.open import open_engine
from stream_seg.engines.recipe import EngineRecipe
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network, open_network
from tests.support import small_networks

FIRST, SECOND = "openvino", "onnxruntime"
PERFORMANCE, MIXED = {"preset": "performance"}, {"preset": "mixed"}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keys of a recipe that calibrates a small network on noise. Only OpenVINO and ONNX Runtime are installed."""
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "engines"))
    for module in ("build", "open"):
        monkeypatch.setattr(f"stream_seg.engines.{module}.available_backends", lambda: (FIRST, SECOND))
    model = small_networks.make_model(outputs={"out": 3})
    network = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(4):
        cv2.imwrite(str(images / f"{seed}.png"), small_networks.make_image(seed=seed))
    return {"network": str(network), "calibrate": str(images), "agreement": 90.0}


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of backends on which int8 engines give the labels of another image; to be filled by the test."""
    names: list[str] = []

    def replace_backend(name: str) -> None:
        create = BACKENDS[name].create_engine

        def create_engine(network: Network, *, precision: str, threads: int, requests: int) -> Engine:
            engine = create(network, precision=precision, threads=threads)
            if precision != "int8" or name not in names:
                return engine

            def run(images: Images) -> Result:
                return Result(scores=-engine.infer(images).scores)  # type: ignore[operator] # it has scores

            return Engine(engine.spec, run)

        monkeypatch.setitem(BACKENDS, name, replace(BACKENDS[name], create_engine=create_engine))

    for name in (FIRST, SECOND):
        replace_backend(name)
    return names


def set_times(monkeypatch: pytest.MonkeyPatch, ours_ms: float, theirs_ms: float) -> None:
    monkeypatch.setattr(build_one, "measure_ms", lambda *engines: [ours_ms, theirs_ms])


def build(recipe: dict[str, Any], folder: Path, **keys: Any) -> tuple[BuildResult, list[str]]:
    """Return the result of a build and the lines that it reports."""
    lines: list[str] = []
    result = build_engine(EngineRecipe(**{**recipe, **keys}), folder=folder, report=Reporter(lines.append))
    return result, lines


def test_int8_is_tried_with_the_next_preset_and_backend(
    recipe: dict[str, Any], wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    wrong.append(FIRST)
    set_times(monkeypatch, 1.0, 2.0)
    folder = tmp_path / "engines"
    alone = build(recipe, folder, backend=SECOND)[0]
    assert alone.entry.instead_of is None
    result, lines = build(recipe, folder)
    assert result.entry.key == alone.entry.key
    assert result.fresh, "what was built for the second backend alone does not replace the first"
    assert not build(recipe, folder)[0].fresh
    entry = result.entry
    assert (entry.key.backend, entry.key.precision, entry.instead_of) == (SECOND, "int8", FIRST)
    attempts = [line.partition(": calibration")[0] for line in entry.refused]
    assert attempts == ["int8 (preset performance) on openvino", "int8 (preset mixed) on openvino"]
    refused = [line for line in lines if " refused: " in line]
    assert refused[0].startswith("mine: int8 (preset performance) on openvino refused: calibration: ")
    assert [line.rpartition("; trying ")[2] for line in refused] == [
        "int8 (preset mixed) on openvino",
        "int8 (preset performance) on onnxruntime",
    ]
    assert sum("quantizing: preset" in line for line in lines) == 2, "each preset once"
    network = open_network(recipe["network"])
    with caplog.at_level(logging.INFO), open_engine(network) as engine:
        assert (engine.spec.info.backend, engine.spec.info.precision) == (SECOND, "int8")
    assert any("(its engine was built instead of one for openvino), int8 built" in r.message for r in caplog.records)
    for keys, backend in (({"backend": FIRST}, FIRST), ({"precision": "f32"}, FIRST), ({"backend": "cpu"}, SECOND)):
        with open_engine(network, **keys) as engine:
            assert engine.spec.info.backend == backend
    older = entry.model_copy(update={"key": entry.key.model_copy(update={"version": "0.1"})})
    (folder / f"{entry.name}.json").unlink()
    (folder / entry.file).rename(folder / entry.file.replace(entry.name, older.name))
    older = older.model_copy(update={"file": entry.file.replace(entry.name, older.name)})
    (folder / f"{older.name}.json").write_text(older.model_dump_json())
    (folder / f"{older.name}.json").chmod(0o600)
    with open_engine(network) as engine:
        assert engine.spec.info.backend == FIRST, "an engine of another version decides nothing"


def test_int8_on_another_backend_must_be_faster(
    recipe: dict[str, Any], wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong.append(FIRST)
    set_times(monkeypatch, 2.0, 1.5)
    entry = build(recipe, tmp_path / "engines")[0].entry
    assert (entry.key.backend, entry.instead_of) == (FIRST, None)
    assert entry.key.precision != "int8"
    rival = f"{entry.key.precision} on openvino"
    assert entry.refused[2] == f"int8 (preset performance) on onnxruntime: 2.0 ms per image, {rival} takes 1.5"
    assert len(entry.refused) == 4


def test_both_engines_are_timed(recipe: dict[str, Any]) -> None:
    with open_engine(open_network(recipe["network"]), backend=SECOND) as engine:
        assert [time_ms > 0 for time_ms in build_one.measure_ms(engine, engine)] == [True, True]


@pytest.mark.parametrize(
    ("keys", "tried"),
    [
        ({}, [(p, b) for b in (FIRST, SECOND) for p in ("performance", "mixed")]),
        ({"backend": FIRST}, [("performance", FIRST), ("mixed", FIRST)]),
        ({"backend": SECOND}, [("performance", SECOND), ("mixed", SECOND)]),
        ({"quantize": QuantizeSettings(preset="mixed")}, [("mixed", FIRST), ("mixed", SECOND)]),
        ({"quantize": QuantizeSettings(bias_correction=True), "backend": FIRST},
         [("performance", FIRST), ("mixed", FIRST)]),
    ],
)  # fmt: skip
def test_every_attempt_is_named_if_none_passes(
    keys: dict[str, Any], tried: list[tuple[str, str]], recipe: dict[str, Any], wrong: list[str], tmp_path: Path
) -> None:
    wrong += [FIRST, SECOND]
    entry = build(recipe, tmp_path / "engines", **keys)[0].entry
    assert entry.key.precision != "int8"
    assert entry.key.backend == tried[0][1]
    pattern = r"int8 \(preset (\w+)\) on (\w+): calibration: "
    assert [re.match(pattern, line).groups() for line in entry.refused] == tried  # type: ignore[union-attr]


def test_a_network_that_cannot_be_quantized_is_built_in_another_precision(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise NetworkError("mine: NNCF cannot quantize it: no such operator")

    monkeypatch.setattr(build_one, "quantize", fail)
    entry = build(recipe, tmp_path / "engines", backend=FIRST)[0].entry
    assert entry.key.precision != "int8"
    assert entry.refused[0] == "int8 (preset performance) on openvino: NNCF cannot quantize it: no such operator"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labels": "truth"}, "labels: needs calibrate, the images that the labels are for"),
        ({"images": 8}, "images: needs calibrate, a folder of images or a video"),
        ({"quantize": {"preset": "mixed"}}, "quantize: needs calibrate"),
        ({"miou_loss": 1}, "miou_loss: needs labels; without them, `agreement` is the limit"),
        ({"calibrate": "x", "labels": "truth", "agreement": 98}, "agreement: no effect with labels"),
        ({"precision": "f32", "calibrate": "x"}, "calibrate: no effect with precision f32, which is the reference"),
        ({"precision": "f32", "agreement": 98}, "agreement: no effect with precision f32"),
        ({"precision": "bf16", "calibrate": "x", "quantize": {}}, "quantize: no effect with precision bf16"),
        ({"backend": "torch", "calibrate": "images", "quantize": {}}, "quantize: no effect, since torch has no"),
    ],
)
def test_a_key_without_effect_is_refused(
    keys: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = small_networks.make_model(outputs={"out": 3})
    network = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    recipe = EngineRecipe(**{"network": str(network), **keys})
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}") as caught:
        build_engine(recipe, folder=tmp_path / "engines", report=Reporter(lambda _: None))
    assert "\n" not in str(caught.value)


def test_a_batch_is_no_key_any_more() -> None:
    assert "batch" not in EngineRecipe.model_fields


def test_int8_of_twinlitenet_is_the_same_on_both_backends(data: Path, tmp_path: Path) -> None:
    """It joins int8 tensors, of which OpenVINO cuts off the negative values: 35 % of the labels were those of f32."""
    sidecar = (Path(__file__).parents[2] / "configs/networks/twinlitenet.yaml").read_text()
    path = tmp_path / "twinlitenet.yaml"
    path.write_text(re.sub(r"(?m)^onnx: \S+", f"onnx: {data / 'models/twinlitenet.onnx'}", sidecar))
    network = open_network(path)
    images = sample_source(str(data / "videos/solidWhiteRight.mp4"), network.size, classes=3, count=8)
    fit = [sample.image for sample in images.fit]
    network = replace(network, int8=quantize(network.f32, fit, QuantizeSettings(), name="twinlitenet"))
    labels = []
    for backend in (FIRST, SECOND):
        with open_backend(network, backend, precision="int8") as engine:
            scores = engine.infer(images.held_back[0].image[None]).scores
        assert scores is not None
        labels.append(scores[0].argmax(0))
    assert np.mean(labels[0] == labels[1]) > 0.98
    assert len(np.unique(labels[0])) == 3


def test_threads_without_effect_are_reported(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = open_network(recipe["network"])
    with open_engine(network, threads=2):
        assert not caplog.records
    gpu = replace(find_target(FIRST), device=Device("a GPU", ("f32",), is_gpu=True))
    monkeypatch.setattr("stream_seg.engines.open.find_target", lambda _: gpu)
    with open_engine(network, precision="f32", threads=2):
        assert [record.message for record in caplog.records] == ["mine: threads: no effect on a GPU (a GPU)"]
