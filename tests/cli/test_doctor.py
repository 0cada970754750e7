"""`stream-seg doctor` on this machine, and its table for others."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stream_seg.cli.doctor import examine, make_table, package_versions
from stream_seg.installation import install_hint

ROOT = Path(__file__).parents[2]
H200 = {"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "570.86.10", "compute_capability": "9.0"}


def render(facts: dict[str, Any], todo: str | None = None, *, width: int = 80) -> str:
    """Return the table as a terminal of that many columns shows it."""
    console = Console(file=io.StringIO(), width=width)
    console.print(make_table(facts, todo))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def make_facts(**changes: Any) -> dict[str, Any]:
    """Return the facts of a machine where nothing is installed, with `changes`."""
    cpu = {"name": "x", "cores": 4, "features": []}
    cache = {"folder": "/cache", "engines": 0, "bytes": 0, "doubts": []}
    facts = {"stream_seg": "1", "python": "3.12", "cpu": cpu, "gpus": [], "cuda": None, "lacks": {}, "cache": cache}
    return {**facts, "versions": dict.fromkeys(package_versions()), **changes}


def test_this_machine_can_run_the_main_job() -> None:
    facts, todo = examine()
    assert todo is None
    assert facts["cpu"]["name"]
    assert facts["cpu"]["cores"] >= 1
    assert facts["engine"]["network"] == "road"
    assert facts["backend"]["name"] == facts["engine"]["backend"]
    assert facts["frame_ms"] > 0
    assert json.loads(json.dumps(facts)) == facts
    for width in (80, 120):
        text = render(facts, width=width)
        assert "the main job can run" in text
        assert facts["backend"]["why"] in " ".join(text.split())
        assert len(text.splitlines()) <= 24
        assert max(map(len, text.splitlines())) <= width


def test_the_table_shows_what_to_do() -> None:
    assert "to do: pip install openvino" in render(make_facts(), "pip install openvino")


def test_a_machine_with_a_gpu() -> None:
    text = " ".join(render(make_facts(gpus=[H200], cuda="12.8"), width=120).split())
    assert "NVIDIA H200, 143771 MiB, compute capability 9.0; driver 570.86.10, CUDA 12.8" in text
    assert f"TensorRT not installed; to use the GPU: {install_hint('[tensorrt]')}" in text


def test_the_table_explains_missing_backends() -> None:
    facts, _ = examine()
    for name, reason in facts["lacks"].items():
        assert f"; not {name}: {reason}" in " ".join(render(facts, width=400).split())
    assert "openvino" not in facts["lacks"]


def test_tensorrt_without_a_gpu() -> None:
    text = render(make_facts(versions={**dict.fromkeys(package_versions()), "tensorrt-rtx": "1.7"}), width=120)
    assert "tensorrt-rtx 1.7; no GPU here to run engines, only to build them" in text


def test_missing_amx_is_shown_if_the_instruction_sets_are_known() -> None:
    assert "AVX2, no AMX" in render(make_facts(cpu={"name": "x", "cores": 4, "features": ["AVX2"]}))
    assert "no AMX" not in render(make_facts(cpu={"name": "x", "cores": 4, "features": ["AMX int8"]}))


def test_the_engine_cache_and_its_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path))
    assert f"none built yet, in {tmp_path}" in render(examine(available=())[0], width=200)
    (tmp_path / "foreign.json").write_text("{}")
    facts, _ = examine(available=())
    assert facts["cache"]["engines"] == 0
    assert "1 not loaded: engine foreign: not loaded" in render(facts, width=400)
    tmp_path.chmod(0o777)
    assert "is writable by others" in render(examine(available=())[0], width=400)
    full = {"folder": "/cache", "engines": 2, "bytes": 5_000_000, "doubts": []}
    assert "2 built, 5 MB, in /cache" in render(make_facts(cache=full))


def test_without_a_backend_it_names_what_to_install() -> None:
    facts, todo = examine(available=())
    assert todo == f"no backend is installed: {install_hint('openvino')}"
    assert "engine" not in facts


def test_it_exits_1_with_the_one_thing_to_do(tmp_path: Path) -> None:
    for package in ("openvino", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('broken')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "stream_seg", "doctor"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 1, process.stderr
    last_row = process.stdout.partition("verdict")[2]
    assert "to do:" in last_row
    assert "does not load (broken): " in " ".join(last_row.split())
