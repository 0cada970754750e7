"""The commands as a user types them, their output, and the shipped graph files."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stream_seg import __version__
from stream_seg.config.document import Document, MetricsConfig, SourcesConfig, StageKeys, TracesConfig, WatchdogConfig
from stream_seg.config.graph_file import check, read_document
from stream_seg.config.overrides import default_document, with_input, with_outputs
from stream_seg.evaluation.images import evaluate_images
from stream_seg.network.network import open_network
from stream_seg.network.shipped import NETWORKS
from stream_seg.stages.registry import STAGES, stage_class
from stream_seg.zoo import BUILDERS
from tests.evaluation.test_images import write_pair
from tests.support import small_networks
from tests.support.program import ENDLESS_DRIVE, read_json, run_cli

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


COMMANDS = (
    "",
    "run",
    "eval",
    "train",
    "export",
    "engines",
    "engines build",
    "engines show",
    "bench",
    "doctor",
    "networks",
    "stages",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*command.split(), "--help") == 0
    out = capsys.readouterr().out
    assert "Usage:" in out
    assert not re.search("{(?!RECIPE|NETWORK|ENGINE)", out), "a placeholder"
    assert not re.search("<[a-z]", out), "the type of a parameter, which says less than a name"
    assert max(map(len, out.splitlines())) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [["rum"], ["run", "--bogus"], ["run", "--metrics-port", "70000"]])
def test_a_wrong_argument_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*arguments) == 2
    assert re.fullmatch(r"stream-seg: .+; see .+ --help\n", capsys.readouterr().err)


def test_stages_lists_every_kind_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("stages") == 0
    out = capsys.readouterr().out
    for kind in STAGES:
        section = out[out.index(f"{kind}: ") :].split("\n\n")[0]
        keys = stage_class(kind).__pydantic_fields__  # type: ignore[attr-defined]
        assert re.findall(r"^  (\w+):", section, re.MULTILINE) == list(keys)
    parts = {"every stage": StageKeys, "top level": Document, "metrics": MetricsConfig, "traces": TracesConfig}
    for name, model in {**parts, "sources": SourcesConfig, "watchdog": WatchdogConfig}.items():
        section = out[out.index("\nevery stage: " if name == "every stage" else "\ntop level: ") :].split("\n\n")[0]
        dotted = rf"{name}\." if name in Document.model_fields else ""
        assert re.findall(rf"^  {dotted}(\w+):", section, re.MULTILINE) == list(model.model_fields)
    assert "(list; default [])" in out
    assert "[red, green, blue]" in out  # not taken for markup
    assert "(number >= 0 and < 1; default 0.8)" in out
    assert "(list of 2, each a whole number >= 8 and <= 8192; default none)" in out
    assert "(mapping, each to a number >= -20 and <= 20; default {})" in out
    assert "(whole number >= 1 and <= 1000 or auto; default 1)" in out


def test_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("networks", "--json", tmp_path / "n.json") == 0
    written = read_json(tmp_path / "n.json")
    listed = written["networks"]
    assert [entry["name"] for entry in written["zoo"]] == list(BUILDERS)
    assert [network["name"] for network in listed] == list(NETWORKS)
    for network in listed:
        opened = open_network(network["name"])
        assert (tuple(network["size"]), tuple(network["classes"])) == (opened.size, opened.classes.names)
        assert len(opened.f32) in network["files"].values()
    assert "384x640" in capsys.readouterr().out


def make_dataset(folder: Path) -> tuple[Path, Path]:
    """Write a small network and a folder with one labelled image; return their paths."""
    write_pair(folder, "a.png", np.random.default_rng(0).integers(0, 3, small_networks.SIZE, np.uint8))
    return small_networks.write_network(
        folder, small_networks.make_model(outputs={"scores": 3}), {"classes": small_networks.CLASSES}
    ), folder


def test_eval_prints_and_writes_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, data = make_dataset(tmp_path)
    assert run_cli("eval", "--network", network, "--data", data, "--split", "val", "--json", tmp_path / "e.json") == 0
    figures = evaluate_images(network, data, split="val")
    assert read_json(tmp_path / "e.json") == figures
    assert f"{100 * figures['miou']:.1f}" in capsys.readouterr().out


def test_eval_at_another_size(tmp_path: Path) -> None:
    _, data = make_dataset(tmp_path)
    assert run_cli("eval", "--data", data, "--size", "176x240", "--json", tmp_path / "e.json") == 0
    assert (
        read_json(tmp_path / "e.json")
        == evaluate_images("road", data, size=(176, 240))
        != evaluate_images("road", data)
    )


def test_eval_with_a_bias_for_classes(tmp_path: Path) -> None:
    _, data = make_dataset(tmp_path)
    settings = ["--prefer", "pole=3", "--prefer", "sky=-1", "--json", tmp_path / "e.json"]
    assert run_cli("eval", "--data", data, *settings) == 0
    biased = evaluate_images("road", data, prefer={"pole": 3, "sky": -1})
    assert read_json(tmp_path / "e.json") == biased != evaluate_images("road", data)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--network", "raod"], 2, "unknown network 'raod'"),
        (["--size", "352"], 2, "--size 352: expected HEIGHTxWIDTH"),
        (["--network", "road", "--size", "170x230"], 4, "170x230 does not fit its strides"),
        (["--prefer", "pole"], 2, "--prefer pole: expected CLASS=NUMBER, -20 to 20, for example pole=0.5"),
        (["--prefer", "sky=21"], 2, "--prefer sky=21: expected CLASS=NUMBER"),
        (["--prefer", "lorry=1"], 2, "prefer: unknown class 'lorry'; the classes are"),
        (["--prefer", "sky=1", "--prefer", "pole=1", "--prefer", "sky=0"], 2, "--prefer sky=0: sky is named twice"),
        (["--data", "missing"], 3, "missing"),
        (["--data", "x" * 300], 3, "File name too long"),
        (["--network", f"{'x' * 300}.onnx"], 4, "x.onnx: File name too long"),
        (["--frames", "5"], 2, "--frames: needs --temporal"),
        (["--json", "missing/deep/e.json"], 5, "no such folder"),
    ],
)
def test_eval_refuses(
    arguments: list[str], code: int, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network, data = make_dataset(tmp_path)
    assert run_cli("eval", "--network", network, "--data", data, *arguments) == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("stream-seg: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data: is required, a folder with val/ and valannot/"),
        (["--split", "test"], "--data: is required, a folder with test/ and testannot/"),
        (["--temporal", "--split", "test"], "--split: needs --data"),
    ],
)
def test_eval_without_data(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("eval", *arguments) == 2
    assert capfd.readouterr().err == f"stream-seg: {message}\n"


def test_eval_in_the_folder_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = make_dataset(tmp_path)
    monkeypatch.chdir(data)
    assert run_cli("eval", "--network", network, "--json", "e.json") == 0
    assert read_json(Path("e.json")) == evaluate_images(network, data, split="val")


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("doctor", "--json", tmp_path / "d.json") == 0
    facts = read_json(tmp_path / "d.json")
    assert facts["todo"] is None
    assert facts["engine"]["network"] == "road"
    assert "the main job can run" in capsys.readouterr().out


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_graph_file_and_its_command_are_valid(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    document = read_document(path)
    _, _, command = first.partition("stream-seg run ")
    assert command or path.name == "default.yaml", first
    arguments, _, config = command.partition("--config ")
    assert config in ("", f"configs/{path.name}")
    source, *outputs = shlex.split(arguments) or ([""] if command else ["drive.mp4", "out.mp4"])
    document = with_input(document, source) if source else document
    document = with_outputs(document, outputs) if outputs else document
    assert check(document, where=path.name).nodes


def test_the_default_graph_is_the_one_in_configs() -> None:
    assert read_document(ROOT / "configs" / "default.yaml") == default_document()


def test_run_pipeline_is_the_same_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "run_pipeline.py", f"{ENDLESS_DRIVE}&frames=3", "o.jsonl", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "o.jsonl").read_text().count("\n") == 3


RUN_PIPELINE = (str(ROOT / "run_pipeline.py"),)
STREAM_SEG = ("-m", "stream_seg")


@pytest.mark.parametrize(
    "program",
    [
        (*RUN_PIPELINE, "-v", "--log-format", "text"),
        (*STREAM_SEG, "run", "--verbose", "--log-format", "text"),
        (*STREAM_SEG, "-v", "--log-format", "text", "run"),
        (*STREAM_SEG, "-v", "--log-format", "json", "run", "--log-format", "text"),
    ],
    ids=" ".join,
)
def test_log_options_work_before_and_after_the_command(program: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, *program, f"{ENDLESS_DRIVE}&frames=3", "o.jsonl", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert re.search(r"^\d\d:\d\d:\d\d INFO road: ", done.stderr, re.MULTILINE)


def test_run_pipeline_logs_as_the_command_does(tmp_path: Path, unused_port: int) -> None:
    command = [sys.executable, *RUN_PIPELINE, f"rtsp://127.0.0.1:{unused_port}/x", "o.jsonl", "-q"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        line = program.stderr.readline()
        program.kill()
    record = json.loads(line)
    assert (record["level"], record["stream"], "refused" in record["message"]) == ("warning", "capture", True)


@pytest.mark.parametrize("program", [(*RUN_PIPELINE, "-h"), (*STREAM_SEG, "run", "-h")], ids=" ".join)
def test_short_help_of_the_main_job(program: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, *program], capture_output=True, text=True, check=True, timeout=60)
    assert "--log-format" in done.stdout


def test_the_table_of_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("run", f"{ENDLESS_DRIVE}&frames=10", tmp_path / "o.jsonl") == 0
    output = capsys.readouterr()
    assert "10 in, 10 out, dropped: none" in output.out
    assert re.search(r"^segment +10 +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d", output.out, re.MULTILINE)
    assert "road, " in output.out
    assert re.fullmatch(r"(\d+ of 10 frames, .*\n)*", output.err)  # progress, if the run takes seconds


def test_a_package_that_cannot_be_imported_is_one_line() -> None:
    """Import OpenCV without libGL.so.1, as on a bare server."""
    script = "import sys; sys.modules['cv2'] = None; from stream_seg.cli.program import main; main(['run'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(r"stream-seg: .*cv2.*apt install libgl1 libglib2.0-0\n", done.stderr)


def test_networks_says_which_have_weights_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("networks", "--json", "-") == 0
    listed = json.loads(capsys.readouterr().out)
    states = {entry["name"]: entry["state"] for entry in listed["zoo"]}
    assert [name for name, state in states.items() if state == "shipped"] == list(NETWORKS)
    assert {"fcn_resnet50", "deeplabv3_resnet50"} < {name for name, state in states.items() if state == "published"}
    assert states["unet"] == "untrained"
    assert run_cli("networks") == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, state in states.items():
        assert f" {name} {state} " in text
    assert "shipped stream-seg run INPUT OUTPUT --network NAME" in text
    assert "stream-seg export NAME --weights FILE --size 352x480 --out NAME.onnx" in text
    for entry in BUILDERS.values():
        assert entry.weights is None or entry.weights.removesuffix(".DEFAULT").lower().replace("_", "").startswith(
            str(entry.keys["model"]).replace("_", "")
        )


@pytest.mark.parametrize("command", ["eval --network unet --temporal", "engines build unet"])
def test_a_network_without_weights_says_what_to_do(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*command.split()) == 2
    line = capfd.readouterr().err
    assert line.startswith("stream-seg: network: unet is untrained; train it: stream-seg train RECIPE")
    assert "stream-seg export unet --weights FILE" in line
    assert line.count("\n") == 1
