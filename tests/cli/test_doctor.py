"""The doctor on this machine, and what it says of others."""

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

from stream_seg.cli.doctor import PACKAGES, as_table, examined

ROOT = Path(__file__).parents[2]
H200 = {"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "570.86.10", "compute_capability": "9.0"}


def screen(found: dict[str, Any], todo: str | None = None, *, width: int = 80) -> str:
    """What a terminal of that many columns shows."""
    console = Console(file=io.StringIO(), width=width)
    console.print(as_table(found, todo))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def bare(**more: Any) -> dict[str, Any]:
    """What is found where nothing is installed."""
    cpu = {"name": "x", "cores": 4, "features": []}
    cache = {"folder": "/cache", "engines": 0, "bytes": 0, "doubts": []}
    found = {"stream_seg": "1", "python": "3.12", "cpu": cpu, "gpus": [], "cuda": None, "lacks": {}, "cache": cache}
    return {**found, "versions": dict.fromkeys(PACKAGES), **more}


def test_this_machine_can_run_the_main_job() -> None:
    found, todo = examined()
    assert todo is None
    assert found["engine"]["network"] == "road"
    assert found["backend"]["name"] == found["engine"]["backend"]
    assert found["frame_ms"] > 0
    assert json.loads(json.dumps(found)) == found
    for width in (80, 120):
        text = screen(found, width=width)
        assert "the main job can run" in text
        assert found["backend"]["why"] in " ".join(text.split())
        assert len(text.splitlines()) <= 24
        assert max(map(len, text.splitlines())) <= width


def test_what_to_do_stands_in_the_table() -> None:
    assert "to do: pip install openvino" in screen(bare(), "pip install openvino")


def test_a_machine_with_a_gpu() -> None:
    text = " ".join(screen(bare(gpus=[H200], cuda="12.8"), width=120).split())
    assert "NVIDIA H200, 143771 MiB, compute capability 9.0; driver 570.86.10, CUDA 12.8" in text
    assert "TensorRT not installed; pip install '.[tensorrt]'" in text


def test_why_another_backend_is_not_taken() -> None:
    found, _ = examined()
    for name, reason in found["lacks"].items():
        assert f"; not {name}: {reason}" in " ".join(screen(found, width=400).split())
    assert "openvino" not in found["lacks"]


def test_tensorrt_without_a_gpu() -> None:
    text = screen(bare(versions={**dict.fromkeys(PACKAGES), "tensorrt-rtx": "1.7"}), width=120)
    assert "tensorrt-rtx 1.7; builds engines, has no GPU here to run them" in text


def test_amx_is_missed_where_the_instructions_are_known() -> None:
    assert "AVX2, no AMX" in screen(bare(cpu={"name": "x", "cores": 4, "features": ["AVX2"]}))
    assert "no AMX" not in screen(bare(cpu={"name": "x", "cores": 4, "features": ["AMX int8"]}))


def test_what_is_in_the_cache_and_what_is_wrong_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path))
    assert f"none built yet, in {tmp_path}" in screen(examined(present=())[0], width=200)
    (tmp_path / "foreign.json").write_text("{}")
    found, _ = examined(present=())
    assert found["cache"]["engines"] == 0
    assert "1 not loaded: engine foreign: not loaded" in screen(found, width=400)
    tmp_path.chmod(0o777)
    assert "may be written by others" in screen(examined(present=())[0], width=400)
    full = {"folder": "/cache", "engines": 2, "bytes": 5_000_000, "doubts": []}
    assert "2 built, 5 MB, in /cache" in screen(bare(cache=full))


def test_without_a_backend_it_says_what_to_install() -> None:
    found, todo = examined(present=())
    assert todo == "no backend is installed: pip install openvino"
    assert "engine" not in found


def test_it_exits_1_with_the_one_thing_to_do(tmp_path: Path) -> None:
    for package in ("openvino", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('broken')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "stream_seg.cli.app", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    verdict = done.stdout.partition("verdict")[2]
    assert "to do:" in verdict
    assert "does not load (broken): pip install" in " ".join(verdict.split())
