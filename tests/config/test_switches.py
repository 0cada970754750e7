"""Everyday switches: the keys that they set, and the graphs that have no such key."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import stream_seg
from stream_seg.cli.app import app
from stream_seg.cli.switches import read_switches
from stream_seg.config.graph_file import check
from stream_seg.config.overrides import default_document, with_input, with_outputs
from stream_seg.config.switches import SWITCHES, apply_switches
from stream_seg.errors import ConfigError
from stream_seg.stages.registry import stage_class


def document(source: str = "drive.mp4", *outputs: str) -> dict[str, Any]:
    return with_outputs(with_input(default_document(), source), outputs or ["o.mp4", "o.jsonl"])


def keys_of(changed: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the keys of a stage that the document without switches does not have."""
    before = document()["stages"].get(name) or {}
    return {key: value for key, value in changed["stages"][name].items() if before.get(key) != value}


def test_a_switch_sets_its_key_on_the_stages_that_have_it() -> None:
    values = {
        "network": "mine.onnx",
        "device": "cpu",
        "size": (96, 160),
        "every": "auto",
        "threads": 2,
        "palette": "voc",
        "classes": ["car", "sky"],
        "opacity": 0.25,
        "start": "0:10",
        "duration": 5,
        "loop": True,
        "fps": 10.0,
        "speed": "fast",
    }
    changed = apply_switches(document(), values, where="graph")
    assert keys_of(changed, "capture") == {"start_s": "0:10", "duration_s": 5, "loop": True, "fps": 10.0}
    network = {"network": "mine.onnx", "backend": "cpu", "size": (96, 160), "every": "auto", "threads": 2}
    network |= {"palette": "voc"}
    assert keys_of(changed, "segment") == network
    assert keys_of(changed, "overlay") == {"classes": ["car", "sky"], "opacity": 0.25}
    assert keys_of(changed, "records") == {"classes": ["car", "sky"]}
    assert keys_of(changed, "write") == {"fps": 10.0, "speed": "fast"}
    assert keys_of(changed, "smooth") == {}
    capture = check(changed, where="graph").sources[0].stage
    assert (capture.start_s, capture.duration_s) == (10, 5)  # type: ignore[attr-defined]


def test_a_switch_that_was_not_used_changes_nothing() -> None:
    values = {**dict.fromkeys(SWITCHES), "smoothing": None}
    assert apply_switches(document(), values, where="graph") == document()
    assert read_switches({"loop": False, "no_smooth": False}) == values


@pytest.mark.parametrize(
    ("outputs", "switch", "message"),
    [
        (
            ["masks/"],
            {"opacity": 0.5},
            r"--opacity: no stage takes it \(key opacity\); the stages are capture, ",
        ),
        (["masks/"], {"classes": ["car"]}, "--classes: no stage takes it"),
        (["o.jsonl"], {"speed": "fast"}, r"--speed: no stage takes it \(key speed\); the stages are capture, "),
    ],
)
def test_a_switch_without_effect_is_refused(outputs: list[str], switch: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^drive.yaml: {message}"):
        apply_switches(document("drive.mp4", *outputs), switch, where="drive.yaml")


@pytest.mark.parametrize("name", ["start", "loop"])
def test_a_synthetic_drive_has_no_start_and_no_loop(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^graph: --{name}: no stage takes it"):
        apply_switches(document("synth://road"), {name: True}, where="graph")
    assert apply_switches(document("synth://road"), {"duration": 2, "fps": 5}, where="graph")


def test_size_and_threads_are_those_of_the_network_only() -> None:
    graph = {"stages": {"capture": {"uri": "0"}, "write": {"input": "capture", "path": "o.mp4"}}}
    for name, value in (("size", (96, 160)), ("threads", 2)):
        with pytest.raises(ConfigError, match=f"graph: --{name}: no stage takes it"):
            apply_switches(graph, {name: value}, where="graph")


def test_without_smoothing_the_stages_behind_take_its_frames() -> None:
    changed = apply_switches(document(), {"smoothing": False}, where="graph")["stages"]
    assert {name: keys.get("input") for name, keys in changed.items()} == {
        "capture": None,
        "segment": "capture",
        "overlay": "segment",
        "write": "overlay",
        "records": "segment",
    }
    with pytest.raises(ConfigError, match="graph: --no-smooth: no stage smooths the labels; the stages are capture,"):
        apply_switches({"stages": changed}, {"smoothing": False}, where="graph")
    with pytest.raises(ConfigError, match="graph: no-smooth: no stage smooths"):
        apply_switches({"stages": changed}, {"smoothing": False}, where="graph", prefix="")


def test_stages_that_smooth_are_known_by_their_trait() -> None:
    stages: dict[str, Any] = {
        "a": {"stage": "synthetic"},
        "b": {"stage": "synthetic"},
        "segment": {"input": ["a", "b"]},
        "steady": {"stage": "smooth", "input": ["segment"]},
        "steadier": {"stage": "smooth", "input": "steady"},
        "other": {"stage": "overlay", "input": ["steadier"]},
        "records": {"input": ["other", "steady"], "path": "o.jsonl"},
    }
    changed = apply_switches({"stages": stages}, {"smoothing": False}, where="graph")["stages"]
    assert [*changed] == ["a", "b", "segment", "other", "records"]
    assert (changed["other"]["input"], changed["records"]["input"]) == ("segment", ["other", "segment"])
    assert stages["other"]["input"] == ["steadier"]


def test_the_page_lists_every_switch_and_its_keys() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = [re.split(r"\s*(?<!\\)\|\s*", line) for line in page.splitlines() if line.startswith("| `--")]
    listed = {cells[1].strip("`").split()[0].removeprefix("--"): cells[2] for cells in rows}
    assert listed.pop("no-smooth") == ""
    assert {*listed} == {*SWITCHES} - {"precision"}
    for name, text in listed.items():
        key = SWITCHES[name].key
        assert key in text
        for stage in re.findall(r"`(\w+)[.`]", text):
            if stage != key and stage != "classes":
                assert key in stage_class(stage).__pydantic_fields__  # type: ignore[attr-defined]


def test_command_line_and_python_have_the_same_switches() -> None:
    options = {parameter.name for parameter in typer.main.get_group(app).commands["run"].params}
    assert set(SWITCHES) - options == {"precision"}  # the fastest available; --set segment.precision
    assert "no_smooth" in options
    outputs = {"classes", "opacity", "speed"}  # stream_seg.open draws and writes nothing
    for function, missing in ((stream_seg.open, outputs), (stream_seg.run, set())):
        names = set(inspect.signature(function).parameters) - {"source", "outputs", "overwrite"}
        assert names == {*SWITCHES, "smooth"} - missing
