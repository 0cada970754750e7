from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_seg.config.graph_file import apply_settings, check, read_document
from stream_seg.errors import ConfigError
from stream_seg.schema.yaml import parse_yaml
from stream_seg.stages.registry import StageLoader

GRAPH = """
stages:
  capture: {uri: drive.mp4}
  segment: {input: capture}
  smooth:  {input: segment, weight: 0.5}
  write:   {input: smooth, path: out.mp4}
metrics: {port: 9108}
"""
GRAPH_WITH_CODE = """
stages:
  synthetic: {frames: 3}
  own:     {stage: "my_stages.py:Pass", input: synthetic, size: 5}
  records: {input: own, path: out.jsonl}
"""
STAGE_FILE = """
from dataclasses import dataclass

@dataclass
class Pass:
    size: int = 3

    def __call__(self, frames):
        yield from frames
"""


def config_error(text: str) -> str:
    """Return the error of a graph file, which is one line that begins with the name of the file."""
    with pytest.raises(ConfigError) as caught:
        check(parse_yaml(text, where="g.yaml"), where="g.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("g.yaml")
    return message


def test_a_graph_is_read() -> None:
    config = check(parse_yaml(GRAPH, where="g.yaml"), where="g.yaml")
    assert [node.name for node in config.nodes] == ["capture", "segment", "smooth", "write"]
    assert [node.inputs for node in config.nodes] == [(), ("capture",), ("segment",), ("smooth",)]
    assert config.nodes[2].stage.weight == 0.5  # type: ignore[attr-defined]
    assert config.nodes[0].stage.stream == "capture"  # type: ignore[attr-defined]
    assert config.metrics is not None
    assert (config.metrics.host, config.metrics.port) == ("127.0.0.1", 9108)


def test_nodes_follow_their_inputs_in_any_order_of_the_file() -> None:
    lines = GRAPH.strip().splitlines()
    config = check(parse_yaml("\n".join([lines[0], *reversed(lines[1:5]), lines[5]]), where="g"), where="g")
    seen: set[str] = set()
    for node in config.nodes:
        assert set(node.inputs) <= seen
        seen.add(node.name)


SIZE = "expected list of 2, each a whole number >= 8 and <= 8192"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight", "wieght", "stages.smooth: unknown key 'wieght', did you mean weight? (known: weight, gap_s, input"),
        ("weight: 0.5", "weight: 1.5", "stages.smooth.weight: expected number >= 0 and < 1, got 1.5"),
        ("weight: 0.5", "weight: lots", "stages.smooth.weight: expected number >= 0 and < 1, got 'lots'"),
        ("input: capture", "input: capture, size: 352x480", f"segment.size: {SIZE}, got '352x480'"),
        ("input: capture", "input: capture, size: [352]", f"segment.size: {SIZE}, got [352]"),
        (
            "input: capture",
            "input: capture, size: [352, 4]",
            "size.1: expected whole number >= 8 and <= 8192, got 4",
        ),
        (
            "input: capture",
            "input: capture, prefer: {pole: 30}",
            "stages.segment.prefer.pole: expected number >= -20 and <= 20, got 30",
        ),
        ("smooth:", "smoooth:", "stages.smoooth: unknown stage 'smoooth', did you mean smooth?"),
        ("input: segment", "input: sgment", "stages.smooth.input: unknown stage 'sgment', did you mean segment?"),
        ("input: capture", "input: smooth", "circle"),
        ("input: capture", "threads: 1", "stages.segment: needs an input"),
        ("capture: {", "capture: {input: smooth, ", "stages.capture: a source takes no input"),
        ("uri: drive.mp4", "", "stages.capture.uri: is required"),
        ("metrics:", "metricks:", "unknown key 'metricks', did you mean metrics?"),
        ("port: 9108", "prt: 9108", "metrics: unknown key 'prt', did you mean port? (known: port, host, "),
        ("port: 9108", "port: 70000", "metrics.port: expected whole number >= 0 and <= 65535, got 70000"),
        ("path: out.mp4", "path: out.avi", "out.avi"),
        (
            "smooth:  {input: segment, weight: 0.5}",
            "smooth:  {input: segment, weight: 0.5, weight: 0.6}",
            "duplicate key 'weight'",
        ),
        ("  write:", "  other: {stage: smooth, input: segment}\n  write:", "nothing takes the frames of other"),
        ("input: smooth,", "input: [smooth, smooth],", "list of different names"),
        ("weight: 0.5", "policy: newest", "stages.smooth.policy: expected latest or every"),
        ("weight: 0.5}", "weight: 0.5", "line 6"),
        ("weight: 0.5", "weight: &a 0.5, gap_s: *a", "aliases are not allowed"),
        ("weight: 0.5", "weight: 2024-13-45", "line 5, column 37 '2024-13-45' is no timestamp"),
        ("weight: 0.5", "weight: !!int abc", "'abc' is no int"),
        ("weight: 0.5", "weight: !!int ''", "'' is no int"),
        ("weight: 0.5", "weight: !!bool maybe", "'maybe' is no bool"),
        ("weight: 0.5", "weight: !!timestamp x", "'x' is no timestamp"),
        ("weight: 0.5", "weight: !!set [1]", "expected a mapping node, but found sequence"),
        ("  smooth:  {", "  'a b': {stage: smooth, input: segment}\n  smooth:  {", "'a b' is no name for a stage"),
        (
            "  segment: {input: capture}",
            "  synthetic: {stream: capture}\n  segment: {input: [capture, synthetic]}",
            "stages.synthetic.stream: 'capture' is the stream of capture already",
        ),
    ],
)
def test_every_mistake_is_rejected_with_its_place(old: str, new: str, message: str) -> None:
    assert old in GRAPH
    assert message in config_error(GRAPH.replace(old, new, 1))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("segment: {every: often}", "segment.every: expected whole number >= 1 and <= 1000 or auto, got 'often'"),
        ("segment: {every: 0}", "segment.every: expected whole number >= 1 and <= 1000 or auto, got 0"),
        ("segment: {network: }", "segment.network: expected text or mapping, got None"),
        ("segment: {network: {1: 2}}", "segment.network.1: expected text, got 1"),
        (
            "overlay: {legend: middle}",
            "overlay.legend: expected true or false or top-left or top-right or bottom-left or bottom-right, "
            "got 'middle'",
        ),
        ("overlay: {colours: {3: '#000000'}}", "overlay.colours.3: expected text, got 3"),
    ],
)
def test_the_error_lists_all_types_of_a_key(stage: str, message: str) -> None:
    graph = f"stages:\n  {stage}".replace("{", "{input: synthetic, ", 1)
    assert config_error(f"{graph}\n  synthetic:\n") == f"g.yaml: stages.{message}"


def test_a_stream_may_reach_a_stage_on_one_path_only() -> None:
    """Frames of two paths have the same numbers and would overwrite each other."""
    graph = """
stages:
  synthetic: {{frames: 3}}
  rear: {{stage: synthetic, frames: 3}}
  road: {{stage: segment, input: {road}}}
  lanes: {{stage: segment, input: synthetic}}
  smooth: {{input: lanes}}
  masks: {{input: [road, smooth], path: out/}}
  records: {{input: road, path: out.jsonl}}
"""
    assert config_error(graph.format(road="[rear, synthetic]")) == (
        "g.yaml: stages.masks.input: the frames of stream 'synthetic' come by road and smooth; "
        "add a stage for each (`stage: masks`)"
    )
    valid = check(parse_yaml(graph.format(road="rear"), where="g.yaml"), where="g.yaml")
    assert len(valid.nodes) == 7


@pytest.mark.parametrize("between", [(), ("smooth", "overlay")])
def test_a_network_behind_a_network_is_refused(between: tuple[str, ...]) -> None:
    """Its labels would replace those of the first."""
    stages: dict[str, Any] = {"synthetic": {"frames": 3}, "first": {"stage": "segment", "input": "synthetic"}}
    for name in between:
        stages[name] = {"input": list(stages)[-1]}
    stages["second"] = {"stage": "segment", "input": list(stages)[-1]}
    stages["records"] = {"input": "second", "path": "out.jsonl"}
    with pytest.raises(ConfigError) as caught:
        check({"stages": stages}, where="g.yaml")
    assert str(caught.value) == (
        "g.yaml: stages.second.input: first has labelled these frames, and second would replace its labels; "
        "take the frames from synthetic, or remove one of the two"
    )
    beside = {**stages, "second": {"stage": "segment", "input": "synthetic"}}
    beside["masks"] = {"input": list(stages)[1 + len(between)], "path": "out/"}
    assert check({"stages": beside}, where="g.yaml").nodes, "two networks beside each other"


@pytest.mark.parametrize(
    "endpoint",
    ["foo", "127.0.0.1:4318", "grpc://host:4317", "http://", "http://:4318/v1", "http://host:x", "http://a b"],
)
def test_the_endpoint_of_traces_is_an_http_url(endpoint: str) -> None:
    graph = f"{GRAPH}traces: {{endpoint: '%s'}}\n"
    assert "g.yaml: traces.endpoint: expected http:// or https:// and a host, got '" in config_error(graph % endpoint)
    for valid in ("http://127.0.0.1:4318/v1/traces", "https://[::1]/v1/traces", "HTTP://collector"):
        assert check(parse_yaml(graph % valid, where="g"), where="g").traces


@pytest.mark.parametrize("text", ["stages: {}", "stages: 3", "policy: latest"])
def test_a_graph_without_stages_is_rejected(text: str) -> None:
    assert "stages" in config_error(text)


def test_deep_nesting_is_rejected() -> None:
    with pytest.raises(ConfigError, match="levels deep"):
        parse_yaml("[" * 20_000, where="deep.yaml")


@pytest.mark.parametrize("content", [b"just words", b"\xff\xfe\x00bad", b"- a\n- b\n"])
def test_a_file_without_a_mapping_is_rejected(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"g\.yaml"):
        read_document(path)


def test_a_missing_file_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        read_document(Path("nowhere.yaml"))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    (large := tmp_path / "large.yaml").write_text("# " + "x" * 1_000_000)
    with pytest.raises(ConfigError, match=r"large\.yaml: too large for a configuration file"):
        read_document(large)


def test_settings_change_a_copy_of_the_document_and_are_checked() -> None:
    document = parse_yaml(GRAPH, where="g")
    changed = apply_settings(document, ["smooth.weight=0.7", "metrics.port=9000", "policy=latest"])
    config = check(changed, where="g")
    assert config.nodes[2].stage.weight == 0.7  # type: ignore[attr-defined]
    assert config.policy == "latest"
    assert config.metrics is not None
    assert config.metrics.port == 9000
    assert document["stages"]["smooth"]["weight"] == 0.5
    with pytest.raises(ConfigError, match="unknown key 'wieght'"):
        check(apply_settings(document, ["smooth.wieght=1"]), where="g")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("smooth.weight", "expected KEY=VALUE"),
        ("smoth.weight=1", "unknown stage 'smoth', did you mean smooth?"),
        ("smooth=1", "add a key of the stage, for example smooth.KEY=VALUE"),
        ("smooth.weight.deep=1", "has no keys of its own"),
        ("smooth.weight=[", "--set smooth.weight: line 1"),
    ],
)
def test_wrong_settings_are_rejected(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(parse_yaml(GRAPH, where="g"), [setting])
    assert message in str(caught.value)


def test_a_graph_may_name_a_stage_class_of_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "my_stages.py").write_text(STAGE_FILE)
    config = check(parse_yaml(GRAPH_WITH_CODE, where="g"), where="g", loader=StageLoader(tmp_path))
    assert [(node.kind, node.role) for node in config.nodes][1] == ("my_stages.py:Pass", "filter")
    with pytest.raises(ConfigError, match=r"^g: stages\.own: unknown key 'sized', did you mean size\? \(known: size, "):
        check(
            apply_settings(parse_yaml(GRAPH_WITH_CODE, where="g"), ["own.sized=3"]),
            where="g",
            loader=StageLoader(tmp_path),
        )


def test_a_closed_loader_loads_no_new_code(tmp_path: Path) -> None:
    (tmp_path / "my_stages.py").write_text(STAGE_FILE)
    loader = StageLoader(tmp_path)
    check(parse_yaml(GRAPH_WITH_CODE, where="g"), where="g", loader=loader)
    loader.close()
    (tmp_path / "my_stages.py").write_text("raise AssertionError('imported again')")
    check(parse_yaml(GRAPH_WITH_CODE, where="g"), where="g", loader=loader)
    with pytest.raises(ConfigError, match=r"stages\.own: 'my_stages\.py:Other': a reload loads no new code"):
        check(parse_yaml(GRAPH_WITH_CODE.replace("Pass", "Other"), where="g"), where="g", loader=loader)
