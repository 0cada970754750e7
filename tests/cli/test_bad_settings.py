"""Bad settings, graph files and networks: exit code, one line of error, and no output file."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support import small_networks
from tests.support.program import ENDLESS_DRIVE, list_folder, run_failing

CONFIG, NETWORK = 2, 4
SHORT = f"{ENDLESS_DRIVE}&frames=3"
GRAPH = """
stages:
  capture: {uri: drive.mp4}
  segment: {input: capture, network: road}
  smooth:  {input: segment, weight: 0.4}
  write:   {input: smooth, path: out/o.mp4}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with a folder `out` for the outputs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("model", "sidecar", "code", "message"),
    [
        ("rank", {"classes": small_networks.CLASSES}, NETWORK, "expected an image: float or uint8, 4 axes"),
        ("good", {"classes": ["ground", "wall"]}, CONFIG, "2 classes"),
        ("good", {"classes": small_networks.CLASSES, "meen": [0, 0, 0]}, CONFIG, "unknown key 'meen', did you mean"),
        ("good", None, NETWORK, "no side-car"),
        ("text", {"classes": small_networks.CLASSES}, NETWORK, "not an ONNX file"),
    ],
)
def test_an_own_network(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    model: str,
    sidecar: dict[str, object] | None,
    code: int,
    message: str,
) -> None:
    network = small_networks.make_model(outputs={"scores": 3})
    if model == "rank":
        del network.graph.input[0].type.tensor_type.shape.dim[0]
    path = small_networks.write_network(folder, network, sidecar)
    if model == "text":
        path.write_text("a few words\n")
    result, line = run_failing(capfd, SHORT, "out/o.mp4", "--set", "segment.network=mine.onnx")
    assert (result, message in line) == (code, True), line
    assert list_folder(folder / "out") == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("segment.network=raod", "unknown network 'raod', did you mean road"),
        ("overlay.colours={road: purplish}", "overlay.colours.road: 'purplish' is no colour"),
        ("overlay.opacities={raod: 1}", "unknown class 'raod'; the classes are sky, building"),
        ("segment.palette=kitti", "segment.palette: expected distinct or camvid or cityscapes or voc, got 'kitti'"),
        ("smooth.wieght=1", "unknown key 'wieght', did you mean weight?"),
        ("smooth.weight=lots", "smooth.weight: expected number >= 0 and < 1"),
        ("smoth.weight=1", "unknown stage 'smoth', did you mean smooth?"),
        ("metrics=3", "metrics: expected mapping, got 3"),
        ("capture.frames=0", "capture.frames: expected whole number >= 1"),
    ],
)
def test_a_setting(folder: Path, capfd: pytest.CaptureFixture[str], setting: str, message: str) -> None:
    code, line = run_failing(capfd, SHORT, "out/o.mp4", "--set", setting)
    assert (code, message in line) == (CONFIG, True), line
    assert list_folder(folder / "out") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight:", "wieght:", "g.yaml: stages.smooth: unknown key 'wieght', did you mean weight?"),
        ("smooth: ", "smoth: ", "unknown stage 'smoth', did you mean smooth?"),
        ("weight: 0.4", "weight: [0.4]", "stages.smooth.weight: expected number >= 0 and < 1"),
        ("weight: 0.4", "weight: 0.4, weight: 0.5", "duplicate key 'weight'"),
        ("input: capture", "input: smooth", "the stages form a circle"),
        ("input: segment", "input: sgment", "unknown stage 'sgment', did you mean segment?"),
        ("input: capture", "input: 3", "expected a stage's name"),
        ("input: capture", "input: [[capture]]", "expected a stage's name"),
        ("input: capture", "stage: [segment], input: capture", "expected the name of a stage, got a list"),
        ("{uri: drive.mp4}", "3", "stages.capture: expected mapping, got 3"),
        ("stages:", "stages: 3\nmore:", "g.yaml: "),
        ("stages:", "stages: [", "g.yaml: line"),
        ("network: road", "network: raod", "unknown network 'raod'"),
    ],
)
@pytest.mark.parametrize("arguments", [[], [SHORT, "out/o.mp4"]], ids=["alone", "with INPUT OUTPUT"])
def test_a_graph_file(
    folder: Path, capfd: pytest.CaptureFixture[str], old: str, new: str, message: str, arguments: list[str]
) -> None:
    assert old in GRAPH
    Path("g.yaml").write_text(GRAPH.replace(old, new, 1))
    code, line = run_failing(capfd, *arguments, "--config", "g.yaml")
    assert (code, message in line) == (CONFIG, True), line
    assert list_folder(folder / "out") == []


def test_an_https_page_without_a_certificate(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, line = run_failing(capfd, SHORT, "https://127.0.0.1:8096", "out/o.mp4")
    assert code == CONFIG
    assert "https:// needs a certificate: set certfile and keyfile" in line
    assert list_folder(folder / "out") == []


def test_input_for_a_graph_of_two_sources(capfd: pytest.CaptureFixture[str]) -> None:
    Path("g.yaml").write_text(GRAPH.replace("  segment", "  rear: {stage: capture, uri: r.mp4}\n  segment"))
    code, line = run_failing(capfd, SHORT, "out/o.mp4", "--config", "g.yaml")
    assert (code, "the graph has the sources capture, rear" in line) == (CONFIG, True)


def test_a_port_in_use(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, line = run_failing(capfd, SHORT, "out/o.mp4", "--metrics-port", port)
    assert (code, f"cannot serve on 127.0.0.1:{port}" in line) == (CONFIG, True)
    assert list_folder(folder / "out") == []
