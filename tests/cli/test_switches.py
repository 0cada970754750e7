"""The everyday switches of `stream-seg run`, from the command line into files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.backends.registry import BACKENDS
from stream_seg.installation import install_hint
from tests.support import small_networks
from tests.support.clips import number_image, read_number, read_video, write_video
from tests.support.program import ENDLESS_DRIVE, read_json, run_cli, run_failing

CONFIG, SOURCE, NETWORK = 2, 3, 4
SIZE = (48, 32)
QUIET = ("--set=overlay.hud=false", "--set=overlay.legend=false", "--quiet")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a clip of 50 frames at 25 frames/s and a small network."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", (number_image(number, SIZE) for number in range(50)))
    model = small_networks.make_model(outputs={"scores": 3})
    small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    return tmp_path


def records(path: str = "o.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_switches_of_network_classes_and_time(folder: Path) -> None:
    switches = "--network mine.onnx --device onnxruntime --threads 2 --no-smooth --classes wall,sky --classes ground"
    times = "--start 0:00.4 --duration 1 --fps 10"
    command = f"clip.mp4 o.mp4 o.jsonl {switches} {times} --opacity 0 --report r.json".split()
    assert run_cli("run", *command, *QUIET) == 0
    report = read_json(folder / "r.json")
    assert (report["engine"]["network"], report["engine"]["backend"]) == ("mine", "onnxruntime")
    assert {*report["stages"]} == {"capture", "segment", "overlay", "write", "records"}
    assert [record["pts_s"] for record in records()] == [0.4, 0.52, 0.6, 0.72, 0.8, 0.92, 1.0, 1.12, 1.2, 1.32]
    assert {*records()[0]["classes"]} == {"ground", "wall", "sky"}
    video = read_video(folder / "o.mp4")
    assert [time for time, _ in video] == [Fraction(number, 10) for number in range(10)]
    assert [read_number(image) for _, image in video] == [10, 13, 15, 18, 20, 23, 25, 28, 30, 33]


def test_only_the_classes_named_are_shown(folder: Path) -> None:
    assert run_cli("run", "clip.mp4", "o.jsonl", "--network", "mine.onnx", "--classes", "sky", *QUIET[2:]) == 0
    assert all([*record["classes"]] == ["sky"] for record in records())


def test_a_setting_wins_over_a_switch_and_a_switch_over_the_graph_file(folder: Path) -> None:
    cv2.imwrite("grey.png", np.full((32, 48, 3), 100, np.uint8))
    (folder / "graph.yaml").write_text(
        "stages:\n"
        "  capture: {uri: grey.png}\n"
        "  segment: {input: capture, network: mine.onnx}\n"
        "  overlay: {input: segment, opacity: 0.5, hud: false, legend: false}\n"
        "  write: {input: overlay, path: o.mp4}\n"
    )
    for number, arguments in enumerate(([], ["--opacity", "0"], ["--opacity", "0", "--set", "overlay.opacity=1"])):
        path = folder / f"{number}.mp4"
        assert run_cli("run", "--config", "graph.yaml", f"--set=write.path={path}", "--quiet", *arguments) == 0
    deviations = [np.abs(read_video(folder / f"{n}.mp4")[0][1].astype(int) - 100).max() for n in range(3)]
    assert deviations[1] <= 5 < 20 < deviations[0] < deviations[2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("clip.mp4 o.mp4 --network mine.onnx --classes wal", CONFIG, r"unknown class 'wal'.* ground, wall, sky"),
        (
            "clip.mp4 o.mp4 --network unet",
            CONFIG,
            r"--network: unet is untrained; train it: stream-seg train .*export unet",
        ),
        ("clip.mp4 o.mp4 --network nope", CONFIG, r"--network: unknown network 'nope' \(known: road\)"),
        ("clip.mp4 masks/ --opacity 0.5", CONFIG, r"graph: --opacity: no stage takes it .* capture, segment, smooth"),
        ("clip.mp4 o.mp4 --size 352", CONFIG, "--size 352: expected HEIGHTxWIDTH in pixels"),
        ("clip.mp4 o.mp4 --every x", CONFIG, "--every: expected whole number >= 1 and <= 1000 or auto"),
        ("clip.mp4 o.mp4 --every 0", CONFIG, "--every: expected whole number >= 1 and <= 1000 or auto, got 0"),
        ("clip.mp4 o.mp4 --threads two", CONFIG, "--threads: expected whole number >= 1 and <= 256, got 'two'"),
        ("clip.mp4 o.mp4 --opacity nan", CONFIG, "--opacity: expected number >= 0 and <= 1, got nan"),
        ("clip.mp4 o.mp4 --fps 0", CONFIG, "--fps: expected number >= 0.01 and <= 1000, got 0"),
        ("clip.mp4 o.mp4 --duration 0", CONFIG, "--duration: expected number > 0, got '0'"),
        (
            "clip.mp4 o.mp4 --metrics-port x",
            CONFIG,
            "'--metrics-port': expected a number from 0 to 65535; see .*run --help",
        ),
        ("clip.mp4 o.mp4 --bogus", CONFIG, "no such option: --bogus.*; see .*run --help"),
        ("clip.mp4 o.mp4 --opacty 1", CONFIG, "no such option: --opacty.*--opacity"),
        ("clip.mp4 o.mp4 --fps", CONFIG, "option '--fps' requires an argument"),
        ("clip.mp4 o.mp4 --config missing.yaml", CONFIG, "missing.yaml: no such file$"),
        ("clip.mp4 o.mp4 --device tpu", CONFIG, "--device: expected auto or cpu or gpu or .*, got 'tpu'"),
        ("clip.mp4 o.mp4 --palette ade", CONFIG, "--palette: expected distinct or camvid .*, got 'ade'"),
        ("clip.mp4 o.mp4 --speed quick", CONFIG, "--speed: expected fast or balanced or small, got 'quick'"),
        ("clip.mp4 o.jsonl --speed fast", CONFIG, r"graph: --speed: no stage takes it \(key speed\); the stages are"),
        ("clip.mp4 o.mp4 --start x", CONFIG, r"--start: expected seconds or \[HH:\]MM:SS, got 'x'"),
        ("clip.mp4 o.mp4 --start 0:02", SOURCE, r"clip\.mp4: no frame at 2 s or later; the last one is at 1\.96 s"),
        ("/dev/video0 o.mp4 --start 1", CONFIG, r"capture\.start_s: /dev/video0 is live"),
        (f"{ENDLESS_DRIVE} o.mp4 --loop", CONFIG, "graph: --loop: no stage takes it"),
    ],
)
def test_a_wrong_switch_is_one_line(arguments: str, code: int, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    result, line = run_failing(capfd, *arguments.split())
    assert result == code
    assert re.search(message, line), line


def test_a_device_that_is_missing_says_what_to_install(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "torch"):
        monkeypatch.setitem(BACKENDS, name, replace(BACKENDS[name], packages=("no_such_package",)))
    for device, requirement in (("gpu", "[tensorrt]"), ("torch", "[torch]")):
        result, line = run_failing(capfd, "clip.mp4", "o.mp4", "--device", device)
        assert result == NETWORK
        assert f"backend {device}: not installed: {install_hint(requirement)}" in line


def test_the_help_groups_the_switches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("run", "--help") == 0
    shown = capsys.readouterr().out
    groups = {
        title: shown.split(f"─ {title} ─")[1].split("╰")[0] for title in ("Network", "Drawing", "Time", "Video file")
    }
    assert re.findall(r"--[\w-]+", groups["Network"]) == [
        "--network",
        "--device",
        "--size",
        "--every",
        "--threads",
        "--no-smooth",
    ]
    assert re.findall(r"--[\w-]+", groups["Drawing"]) == ["--classes", "--opacity", "--palette"]
    assert re.findall(r"--[\w-]+", groups["Time"]) == ["--start", "--duration", "--loop", "--fps"]
    assert re.findall(r"--[\w-]+", groups["Video file"]) == ["--speed"]
    for default in ("road", "auto, the", "1", "its own", "all", "0.5", "0", "balanced"):
        assert f"Default: {default}" in " ".join(re.sub("[│─╭╮╰╯]", " ", shown).split())
