"""No command replaces a file that exists, unless --overwrite is set; the refusal comes before any work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import cv2
import pytest
import typer

from stream_seg.cli.app import app
from tests.support.clips import number_image, write_video
from tests.support.program import ENDLESS_DRIVE, list_folder, read_json, run_cli, start_program, wait_until

OUTPUT = 5
DRIVE = "synth://road?size=96x64&frames=3"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of a user, which no command may change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    write_video(tmp_path / "clip.mp4", (number_image(n, (96, 64)) for n in range(3)))
    for name in ("old.mp4", "old.mkv", "old.jsonl", "old.json", "labels/000000.png", "labels/classes.json", "my/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "link.mp4").symlink_to("old.mp4")
    (tmp_path / "linked").symlink_to("labels")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


RUNS = [
    ["old.mp4"],
    ["old.mkv"],
    ["old.jsonl"],
    ["labels/"],
    ["labels"],
    ["linked/"],
    ["my/"],
    ["my"],
    ["link.mp4"],
    ["new.mp4", "old.jsonl"],
    ["new.mp4", "--report", "old.json"],
    ["new.mp4", "--report", "old.mp4"],
]
COMMANDS = [
    *(["run", ENDLESS_DRIVE, *outputs] for outputs in RUNS),  # it would never end
    ["run", "clip.mp4", "old.mp4"],
    ["eval", "--data", ".", "--json", "old.json"],
    ["eval", "--temporal", "--json", "old.json"],
    ["bench", "--seconds", "3600", "--json", "old.json"],
    ["doctor", "--json", "old.json"],
    ["networks", "--json", "old.json"],
    ["engines", "build", "road", "--json", "old.json"],
    ["engines", "list", "--json", "old.json"],
    ["engines", "show", "road", "--json", "old.json"],
    ["engines", "verify", "--json", "old.json"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_file_that_exists_is_refused_in_one_line(
    folder: Path, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    before = contents(folder)
    assert run_cli(*command) == OUTPUT
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "--overwrite" in err
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("command", "written"),
    [
        (["run", DRIVE, "link.mp4", "-q"], ["old.mp4", "link.mp4"]),
        (["run", DRIVE, "old.jsonl", "--report", "old.json", "-q"], ["old.jsonl", "old.json"]),
        (["run", DRIVE, "old.jsonl", "--set", "overwrite=true", "-q"], ["old.jsonl"]),
        (["networks", "--json", "old.json"], ["old.json"]),
        (["engines", "list", "--json", "old.json"], ["old.json"]),
    ],
    ids=str,
)
def test_overwrite_replaces_the_named_files_only(folder: Path, command: list[str], written: list[str]) -> None:
    before = contents(folder)
    assert run_cli(*command, *([] if "--set" in command else ["--overwrite"])) == 0
    after = contents(folder)
    assert {name for name in after if after[name] != before.get(name)} == {*written}
    assert after.keys() == before.keys()
    assert Path("link.mp4").is_symlink()
    assert "old.json" not in written or read_json(Path("old.json"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_graph_file_may_let_its_outputs_replace_files(folder: Path, overwrite: bool) -> None:
    stages = "{capture: {stage: synthetic, width: 96, height: 64, frames: 2}, segment: {input: capture},"
    stages += " records: {input: segment, path: old.jsonl}}"
    Path("g.yaml").write_text(f"stages: {stages}\noverwrite: {str(overwrite).lower()}\n")
    before = contents(folder)
    assert run_cli("run", "--config", "g.yaml", "-q") == (0 if overwrite else OUTPUT)
    assert (contents(folder)["old.jsonl"] != before["old.jsonl"]) is overwrite


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["clip.mp4", "g.yaml"])
def test_a_report_never_replaces_a_file_that_the_run_reads(
    folder: Path, capfd: pytest.CaptureFixture[str], name: str, options: list[str]
) -> None:
    Path("g.yaml").write_text("stages: {capture: {uri: clip.mp4}, records: {input: capture, path: new.jsonl}}")
    before = contents(folder)
    assert run_cli("run", "--config", "g.yaml", "--report", name, *options) == OUTPUT
    assert f"{name}: is the input as well" in capfd.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.mkv", "pipe.jsonl"])
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_pipe_is_no_recording(folder: Path, capfd: pytest.CaptureFixture[str], name: str, options: list[str]) -> None:
    os.mkfifo(name)
    before = (contents(folder), list_folder(folder))
    assert run_cli("run", DRIVE, name, *options) == OUTPUT
    assert f"cannot write {name}: it exists and is not a file" in capfd.readouterr().err
    assert (contents(folder), list_folder(folder)) == before


def test_a_killed_run_leaves_whole_label_maps_which_the_next_one_keeps_or_replaces(folder: Path) -> None:
    masks = Path("masks")
    with start_program("run", ENDLESS_DRIVE, "masks/", "--quiet") as program:
        wait_until(lambda: len([*masks.glob("*.png")]) > 5, program)
        program.kill()
        program.wait()
    maps = {path: path.read_bytes() for path in masks.glob("0*.png")}
    for path in maps:
        label_map = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert label_map is not None
        assert label_map.shape == (64, 96)
    assert run_cli("run", DRIVE, "masks/", "-q") == OUTPUT
    assert {path: path.read_bytes() for path in masks.glob("0*.png")} == maps
    assert run_cli("run", DRIVE, "masks/", "-q", "--overwrite") == 0
    assert list_folder(masks) == ["000000.png", "000001.png", "000002.png", "classes.json"]


def test_every_command_that_writes_a_file_has_the_option() -> None:
    def commands(group: Any, prefix: str = "") -> dict[str, click.Command]:
        listed: dict[str, click.Command] = {}
        for name, command in group.commands.items():
            listed |= commands(command, f"{name} ") if hasattr(command, "commands") else {f"{prefix}{name}": command}
        return listed

    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands(typer.main.get_group(app)).items()
    }
    writing = {name for name, own in options.items() if own & {"--json", "--report", "--out"}}
    assert writing >= {"run", "eval", "bench", "train", "export", "doctor", "networks", "engines build"}
    assert {name for name, own in options.items() if "--overwrite" in own} == writing
