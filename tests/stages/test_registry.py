"""Stages of a user's own: what a graph file may name, and the one line that says what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stream_seg.config.graph_file import check, read_document
from stream_seg.errors import ConfigError
from stream_seg.stages.base import Traits, traits_of
from stream_seg.stages.registry import STAGES, StageLoader, classes_of, stage_class

GOOD = """
from dataclasses import dataclass

@dataclass
class Blur:
    strength: int = 3

    def __call__(self, frames):
        yield from frames
"""
GRAPH = (
    "stages:\n  synthetic: {frames: 3}\n  blur: {input: synthetic, stage: '%s'}\n  write: {input: blur, path: o.mp4}\n"
)


def load(folder: Path, reference: str, code: str | None = GOOD) -> str:
    """Check a graph file that names `reference`, beside a file of `code`; return the error, or the class that it is."""
    if code is not None:
        (folder / "my_stages.py").write_text(code)
    graph = folder / "graph.yaml"
    graph.write_text(GRAPH % reference)
    try:
        config = check(read_document(graph), where=str(graph), loader=StageLoader(folder))
    except ConfigError as error:
        return str(error).replace(str(folder), "")
    return type(config.nodes[1].stage).__name__


def test_every_registered_stage_can_be_loaded() -> None:
    for name in STAGES:
        assert callable(stage_class(name))
    assert [name for name, _ in classes_of("source")] == ["capture", "synthetic"]
    assert [name for name, _ in classes_of("output")] == ["write", "show", "masks", "records", "serve"]


@pytest.mark.parametrize("reference", ["my_stages.py:Blur", "./my_stages.py:Blur"])
def test_a_class_of_a_file_beside_the_graph_file(tmp_path: Path, reference: str) -> None:
    assert load(tmp_path, reference) == "Blur"


def test_a_class_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "blur_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "stages.py").write_text(GOOD)
    monkeypatch.delitem(sys.modules, "blur_package", raising=False)
    path = list(sys.path)
    assert load(tmp_path, "blur_package.stages:Blur") == "Blur"
    assert sys.path == path


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ("missing.py:Blur", GOOD, "/graph.yaml, line 3: stages.blur: 'missing.py': no such file: /missing.py"),
        ("no.such.module:Blur", GOOD, "/graph.yaml, line 3: stages.blur: 'no.such.module': no such module"),
        ("my_stages.py:Blurr", GOOD, "/my_stages.py, line 1: unknown class 'Blurr', did you mean Blur?"),
        ("my_stages.py:", GOOD, "unknown stage 'my_stages.py:'"),
        ("my_stages.py", GOOD, "unknown stage 'my_stages.py'"),
        ("my_stages.py:dataclass", GOOD, "/my_stages.py, line 1: unknown class 'dataclass'"),
        ("my_stages.py:Blur", "class Blur: pass", "/my_stages.py, line 1: Blur is no stage: a dataclass"),
        (
            "my_stages.py:Blur",
            "from dataclasses import dataclass\n\n@dataclass\nclass Blur:\n    x: int = 0\n",
            "/my_stages.py, line 3: Blur is no stage: a dataclass with a method __call__",
        ),
        ("my_stages.py:Blur", "x = 1\ny = x / 0\n", "/my_stages.py, line 2: ZeroDivisionError: division by zero"),
        ("my_stages.py:Blur", "x = 1\ny = (\n", "/my_stages.py, line 2: SyntaxError: '(' was never closed"),
        (
            "my_stages.py:Blur",
            "import numpyy\n",
            "/my_stages.py, line 1: ModuleNotFoundError: No module named 'numpyy'",
        ),
        ("my_stages.py:Blur", "import sys\nsys.exit(3)\n", "/my_stages.py, line 2: SystemExit: 3"),
        ("my_stages.py:Blur", GOOD.replace("strength", "traits: int = 0\n    strength"), "Blur.traits is no"),
        (
            "my_stages.py:Blur",
            GOOD.replace("int = 3", "'Missing' = 3"),
            "`Blur` is not fully defined; you should define `Missing`",
        ),
        (
            "my_stages.py:Blur",
            "from stream_seg.stages.base import Traits\nTraits(role='sink')\n",
            "/my_stages.py, line 2: ValueError: Traits.role: expected source or filter or output, got 'sink'",
        ),
        (
            "my_stages.py:Blur",
            f"{GOOD}\n    def __post_init__(self):\n        raise RuntimeError('a\\nb')\n",
            "RuntimeError: a b",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_line(tmp_path: Path, reference: str, code: str, message: str) -> None:
    error = load(tmp_path, reference, code)
    assert "\n" not in error
    assert error.startswith(("/graph.yaml, line 3: stages.blur: ", "/graph.yaml: stages.blur: "))
    assert message in error


def test_keys_of_a_plain_dataclass_are_validated(tmp_path: Path) -> None:
    (tmp_path / "my_stages.py").write_text(GOOD)
    document = {
        "stages": {"synthetic": {}, "blur": {"stage": "my_stages.py:Blur", "input": "synthetic", "strength": "x"}}
    }
    with pytest.raises(ConfigError, match=r"stages.blur.strength: expected whole number, got 'x'"):
        check(document, where="graph", loader=StageLoader(tmp_path))


@pytest.mark.parametrize(
    "decorator", ["@dataclass(frozen=True)", "@dataclass(frozen=True, slots=True)", "@dataclass(slots=True)"]
)
def test_any_kind_of_dataclass_is_a_stage(tmp_path: Path, decorator: str) -> None:
    code = GOOD.replace("@dataclass", decorator).replace("int = 3", "int = 3\n    lock: object = None")
    assert load(tmp_path, "my_stages.py:Blur", code) == "Blur"


def test_two_classes_of_a_file_share_its_module(tmp_path: Path) -> None:
    (tmp_path / "my_stages.py").write_text(GOOD + GOOD.replace("Blur", "Other"))
    loader = StageLoader(tmp_path)
    assert loader.load("my_stages.py:Blur").__module__ == loader.load("my_stages.py:Other").__module__
    other = tmp_path / "other"
    other.mkdir()
    (other / "my_stages.py").write_text(GOOD.replace("Blur", "Third"))
    assert StageLoader(other).load("my_stages.py:Third").__name__ == "Third"


def test_a_file_cannot_replace_a_module_of_the_standard_library(tmp_path: Path) -> None:
    import json

    (tmp_path / "json.py").write_text(GOOD)
    assert StageLoader(tmp_path).load("json.py:Blur").__name__ == "Blur"
    assert sys.modules["json"] is json


def test_a_closed_loader_loads_no_new_code(tmp_path: Path) -> None:
    (tmp_path / "my_stages.py").write_text(GOOD)
    loader = StageLoader(tmp_path)
    blur = loader.load("my_stages.py:Blur")
    loader.close()
    (tmp_path / "my_stages.py").write_text("raise SystemExit")
    assert loader.load("my_stages.py:Blur") is blur
    assert loader.load("smooth") is stage_class("smooth")
    with pytest.raises(ConfigError, match="a reload loads no new code; start the program again"):
        loader.load("other.py:Blur")


def test_a_class_without_traits_is_a_filter() -> None:
    assert traits_of(object) == Traits(role="filter")  # type: ignore[type-var, arg-type, unused-ignore]
