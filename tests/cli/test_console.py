"""Results on standard output: tables that are not cut, and JSON in their place."""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from stream_seg.cli.bench import make_tables
from stream_seg.cli.console import print_results
from stream_seg.cli.engines_table import make_details, make_table
from stream_seg.cli.listing import list_networks, list_zoo, networks_table, zoo_table
from stream_seg.cli.report import write_json
from stream_seg.errors import OutputError
from stream_seg.evaluation.images import tabulate_images
from stream_seg.zoo import BUILDERS
from tests.support.cache_entries import store_entry
from tests.support.program import ENDLESS_DRIVE, run_cli


def show(table: Table, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a table as a terminal of so many columns shows it."""
    shown = io.StringIO()

    def make_console(**keys: Any) -> Console:
        return Console(**{**keys, "width": width, "file": shown})

    with monkeypatch.context() as patch:
        patch.setattr("rich.console.Console", make_console)
        print_results(table)
    return shown.getvalue()


def make_results(name: str, folder: Path) -> Table:
    """Return a table of results with long cells."""
    if name == "networks":
        return networks_table(list_networks())
    if name == "zoo":
        return zoo_table(list_zoo())
    if name == "eval":
        figures = {"images": 700, "backend": "onnxruntime", "precision": "int8", "network": "road", "split": "test"}
        scores = dict.fromkeys(("miou", "class_accuracy", "pixel_accuracy"), 0.5)
        return tabulate_images({**figures, **scores, "class_iou": {"a class with quite a long name" * 3: None}})
    if name == "bench":
        times = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "cpu_ms"), 12345.6)
        row: dict[str, Any] = {"network": "road", "size": (352, 480), "trained": True, "backend": "onnxruntime"}
        row |= {"precision": "int8", "outside": 0.5, "model": times, "end_to_end": times}
        return next(make_tables({"image": (720, 1280), "rows": [row]}))
    entry = store_entry(folder, network="a-network-with-a-long-name", backend="onnxruntime", device="AMD EPYC 9V74 80")
    return make_details(entry, folder) if name == "engine" else make_table([entry], now=datetime.now(timezone.utc))


@pytest.mark.parametrize("name", ["engines", "engine", "networks", "zoo", "bench", "eval"])
def test_no_table_is_cut_on_a_narrow_terminal(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_results(name, tmp_path)
    wide = show(table, 1000, monkeypatch)
    for width in (80, 60):
        narrow = show(table, width, monkeypatch)
        assert "…" not in narrow
        assert max(map(len, narrow.splitlines())) <= width
        assert sorted(filter(str.isalnum, narrow)) == sorted(filter(str.isalnum, wide))


def test_a_table_in_a_pipe_has_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("networks") == 0
    lines = capsys.readouterr().out.splitlines()
    for name, entry in BUILDERS.items():
        assert any(line.startswith(f"{name} ") and entry.idea in line for line in lines), name
    assert not [line for line in lines if line.endswith(" ")]


@pytest.mark.parametrize("command", ["networks", "engines list", "engines verify", "doctor"])
def test_json_on_standard_output_comes_alone(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*command.split(), "--json", "-") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)
    assert not Path("-").exists()


def test_the_report_on_standard_output_comes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", f"{ENDLESS_DRIVE}&frames=3", tmp_path / "o.jsonl", "--report", "-"]
    assert run_cli(*arguments) == 0
    assert json.loads(capsys.readouterr().out)["frames"]["written"] == 3
    assert run_cli(*arguments[:-1], tmp_path / "o.json", "--overwrite") == 0
    assert "3 in, 3 out" in capsys.readouterr().out


def test_json_has_no_number_that_is_none(tmp_path: Path) -> None:
    figures = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (float("-inf"), 2)}}
    write_json(figures, tmp_path / "f.json")
    text = (tmp_path / "f.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.5, None], "c": {"d": [None, 2]}}
    with pytest.raises(OutputError, match="exists"):
        write_json(figures, tmp_path / "f.json")
