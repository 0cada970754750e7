"""A new stage, output, backend or network is one class and one registry line, and behaves like those of the package."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace as replaced
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

import stream_seg
from stream_seg.backends import registry as backends
from stream_seg.backends.engine import Device, Engine, EngineSpec, Result
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network
from stream_seg.stages import registry as stages
from stream_seg.stages.base import STRICT, Frames, Traits
from stream_seg.zoo import BUILDERS
from tests.support.frames import make_frame
from tests.support.program import run_cli

PACKAGE = Path(stream_seg.__file__).parent
DRIVE = "synth://road?size=96x64&frames=6"


@dataclass(config=STRICT)
class Darken:
    """Darken every image."""

    factor: Annotated[float, Field(ge=0, le=1, description="brightness, 0 is black")] = 0.5

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            yield replaced(frame, image=(frame.image * self.factor).astype(np.uint8))


@pytest.fixture
def darken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", {**stages.STAGES, "darken": f"{__name__}:Darken"})


@pytest.mark.usefixtures("darken")
def test_a_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = tmp_path / "graph.yaml"
    graph.write_text(
        "stages: {synthetic: {}, darken: {input: synthetic, factor: 0.25}, write: {input: darken, path: x.mp4}}"
    )
    assert run_cli("run", DRIVE, tmp_path / "o.mp4", "--config", graph, "--set", "darken.factor=0.1") == 0
    assert re.search(r"^darken +6 ", capsys.readouterr().out, re.MULTILINE)
    assert run_cli("run", DRIVE, tmp_path / "o.mp4", "--config", graph, "--set", "darken.factor=2") == 2
    assert "stages.darken.factor: expected number >= 0 and <= 1, got 2" in capsys.readouterr().err
    assert run_cli("run", DRIVE, tmp_path / "o.mp4", "--config", graph, "--set", "darken.facto=1") == 2
    assert "unknown key 'facto', did you mean factor?" in capsys.readouterr().err
    assert run_cli("stages") == 0
    assert "darken: Darken every image." in capsys.readouterr().out
    document = {"stages": {"synthetic": {"width": 96, "height": 64, "frames": 6}, "darken": {"input": "synthetic"}}}
    with stream_seg.Pipeline(document, frames="darken") as pipeline:
        assert len(list(pipeline)) == 6
        metrics = pipeline.metrics()
    assert metrics['stream_seg_frames_total{stage="darken",outcome="out"}'] == 6
    assert metrics['stream_seg_stage_duration_seconds_count{stage="darken"}'] == 6


@dataclass(config=STRICT)
class Brightness:
    """Write the mean brightness of each frame to a text file."""

    traits = Traits(role="output", argument="a brightness table (.txt)")

    path: Annotated[Path, Field(description="the file, .txt")]

    @classmethod
    def argument(cls, text: str) -> dict[str, Any] | None:
        """Return the keys for a command-line OUTPUT."""
        return {"path": text} if text.endswith(".txt") else None

    def __call__(self, frames: Frames) -> Frames:
        with self.path.open("w") as file:
            for frame in frames:
                file.write(f"{frame.seq} {frame.image.mean():.1f}\n")
                yield frame


def test_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stages, "STAGES", {**stages.STAGES, "brightness": f"{__name__}:Brightness"})
    out, report = tmp_path / "o.txt", tmp_path / "run.json"
    assert run_cli("run", DRIVE, out, "--report", report) == 0
    assert [line.split()[0] for line in out.read_text().splitlines()] == [str(seq) for seq in range(6)]
    assert f"written: {out}" in capsys.readouterr().out
    assert json.loads(report.read_text())["frames"]["by_output"] == {"brightness": 6}
    assert run_cli("run", DRIVE, "o.unknown") == 2
    assert "a brightness table (.txt)" in capsys.readouterr().err
    assert run_cli("run", "--help") == 0
    assert "a brightness table (.txt)" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@dataclass(config=STRICT)
class Gradient:
    """Yield grey images that become brighter."""

    traits = Traits(role="source", argument="gradient://NUMBER")

    uri: Annotated[str, Field(description="gradient://NUMBER of frames")]
    stream: str = "gradient"

    @classmethod
    def argument(cls, text: str) -> dict[str, Any] | None:
        """Return the keys for a command-line INPUT."""
        return {"uri": text} if text.startswith("gradient://") else None

    def expected_frames(self) -> int:
        """Return the number of frames."""
        return int(self.uri.rpartition("/")[2])

    def __call__(self, _: Frames) -> Frames:
        for number in range(self.expected_frames()):
            yield make_frame(number, stream=self.stream, size=(48, 64))


def test_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stages, "STAGES", {**stages.STAGES, "gradient": f"{__name__}:Gradient"})
    report = tmp_path / "run.json"
    assert run_cli("run", "gradient://7", tmp_path / "o.jsonl", "--report", report) == 0
    assert json.loads(report.read_text())["frames"]["captured"] == 7
    assert "7 in, 7 out" in capsys.readouterr().out
    assert stream_seg.open("gradient://7", smooth=False).total_frames == 7
    assert run_cli("run", "gradiend://7", "o.mp4") == 2
    assert "gradiend://" in capsys.readouterr().err


@dataclass(config=STRICT)
class AgeRecorder:
    """Pass frames on, record the ages that outputs report, and count the labels of others."""

    traits = Traits(produces=("labels",), age_feedback=True)

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            AGES.extend(age.ms for age in frame.ages)
            yield frame


AGES: list[float] = []


def test_a_stage_with_age_feedback_and_label_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", {**stages.STAGES, "recorder": f"{__name__}:AgeRecorder"})
    document = {
        "stages": {
            "synthetic": {"width": 96, "height": 64, "frames": 12},
            "segment": {"input": "synthetic"},
            "recorder": {"input": "segment"},
        }
    }
    AGES.clear()
    with stream_seg.Pipeline(document, frames="recorder") as pipeline:
        assert len(list(pipeline)) == 12
        metrics = pipeline.metrics()
    assert AGES
    assert metrics['stream_seg_key_frames_total{stage="recorder"}'] == 12
    assert metrics['stream_seg_quality_level{stage="recorder"}'] == 0


def create_engine(network: Network, *, precision: str, threads: int, **_: Any) -> Engine:
    """Open the network as the backend `ones`: label 1 everywhere."""

    def run(images: np.ndarray[Any, np.dtype[np.uint8]]) -> Result:
        return Result(labels=np.ones((len(images), *network.size), np.uint8))

    info = EngineInfo(network.name, "ones", precision, "a test")
    return Engine(EngineSpec(network.size, network.classes, info), run)


def test_a_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ones = backends.Backend(
        title="Ones",
        packages=("numpy",),
        install=("numpy",),
        precisions=("f32",),
        find_device=lambda: Device("a test", precisions=("f32",)),
        create_engine=create_engine,
    )
    monkeypatch.setitem(backends.BACKENDS, "ones", ones)
    with stream_seg.open_engine("road", device="ones") as engine:
        assert (engine(np.zeros((32, 48, 3), np.uint8)).labels == 1).all()
    report = stream_seg.run(DRIVE, tmp_path / "o.jsonl", smooth=False, device="ones")
    assert report.engine is not None
    assert (report.engine.backend, report.engine.precision) == ("ones", "f32")
    assert run_cli("doctor") in (0, 1)
    assert "Ones" in capsys.readouterr().out
    assert run_cli("stages") == 0
    assert "or ones" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(stream_seg.ConfigError, match="ones"):
        stream_seg.open_engine("road", device="twos")


def test_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from torch import nn

    class OneLayer(nn.Conv2d):
        """One 3x3 convolution from the image to the scores of the classes."""

        def __init__(self, classes: int) -> None:
            super().__init__(3, classes, 3, padding=1)

    builder = replaced(
        BUILDERS["road"], builder=f"{__name__}:OneLayer", parameters=11 * 28, stride=1, keys={}, source="a test"
    )
    monkeypatch.setitem(globals(), "OneLayer", OneLayer)
    monkeypatch.setitem(BUILDERS, "one_layer", builder)
    assert run_cli("networks") == 0
    assert "one_layer" in capsys.readouterr().out
    assert run_cli("bench", "one_layer", "--size", "32x48", "-b", "onnxruntime", "-p", "f32", "--seconds", "0.01") == 0
    assert "one_layer" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["runtime", "config", "telemetry"])
def test_no_stage_is_known_by_name(folder: str) -> None:
    names = {*stages.STAGES, *(target.partition(":")[2] for target in stages.STAGES.values())}
    for file in (PACKAGE / folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Constant) and node.value in names), f"{file.name}:{node.lineno}"
            assert not (isinstance(node, ast.Name | ast.Attribute) and name_of(node) in names), file.name
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stream_seg.stages"):
                assert node.module in ("stream_seg.stages.base", "stream_seg.stages.registry"), file.name


def name_of(node: ast.Name | ast.Attribute) -> str:
    """Return the last part of a name."""
    return node.id if isinstance(node, ast.Name) else node.attr
