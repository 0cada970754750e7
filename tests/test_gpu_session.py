"""The GPU benchmark without a GPU: budget, failures and report are the same code on the CPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FIGURES = ("labels_equal", "latency_batch_1", "throughput_batch_8", "streams_1080p")


@pytest.fixture
def gpu_session(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_session")


def run_script(*arguments: str, packages: Path | None = None, timeout_s: int = 110) -> subprocess.CompletedProcess[str]:
    """Run the script; modules in the folder `packages` are imported instead of installed ones."""
    environment = os.environ | ({"PYTHONPATH": str(packages)} if packages else {})
    command = [sys.executable, str(BENCHMARKS / "gpu_session.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s, env=environment)


def read_report(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def send_and_hang(connection: Connection) -> None:
    connection.send(("open_s", 1.5))
    time.sleep(60)


def send_and_crash(connection: Connection) -> None:
    connection.send(("open_s", 1.5))
    os.abort()


def test_a_rehearsal_measures_on_the_cpu_and_records_what_fails(gpu_session: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise RuntimeError('broken\\ninstallation')\n", encoding="utf-8")
    path = tmp_path / "report.json"
    process = run_script("--device", "cpu", "--seconds", "0.01", "--out", str(path), packages=tmp_path)
    assert process.returncode == 0, process.stderr
    report = read_report(path)
    parts = report["parts"]
    assert list(parts) == list(gpu_session.PARTS)
    for name, part in gpu_session.PARTS.items():
        assert (parts[name].get("not_run") == "needs CUDA") == part.needs_cuda
    assert parts["onnxruntime f32"]["not_run"] == "RuntimeError: broken installation"
    assert {"part": "onnxruntime f32", "reason": "RuntimeError: broken installation"} in report["not_run"]
    figures = parts["torch f32"]
    assert not [name for name in FIGURES if "not_run" in figures[name]]
    assert figures["labels_equal"]["share"] > 0.999
    for copies in ("with_copies", "without_copies"):
        times = figures["latency_batch_1"][copies]
        assert 0 < times["min_ms"] <= times["p50_ms"] <= times["p99_ms"] <= times["max_ms"]
    assert report["machine"]["cores"] >= 1
    assert "torch f32: latency_batch_1: with_copies " in process.stdout


def test_without_a_budget_every_part_is_skipped(gpu_session: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert run_script("--device", "cpu", "--budget-s", "0", "--out", str(path)).returncode == 0
    parts = read_report(path)["parts"]
    for name, part in gpu_session.PARTS.items():
        assert list(parts[name]) == ["not_run"]
        assert part.needs_cuda or parts[name]["not_run"].startswith("skipped: out of time")


@pytest.mark.parametrize(
    ("function", "limit_s", "reason"),
    [(send_and_hang, 5.0, "stopped after 5 s, its share of the budget"), (send_and_crash, 60.0, "exit code -6")],
)
def test_a_part_that_hangs_or_crashes_keeps_its_figures(
    gpu_session: ModuleType, function: Any, limit_s: float, reason: str
) -> None:
    figures: dict[str, float] = {}
    result = gpu_session.run_apart(function, (), limit_s=limit_s, receive=figures.__setitem__)
    assert result.endswith(reason)
    assert figures == {"open_s": 1.5}


def test_onnxruntime_computes_the_labels_of_torch(gpu_session: ModuleType) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, *gpu_session.SIZE, 3), np.uint8)
    runner = gpu_session.open_onnxruntime("cpu", precision="f32")
    labels = runner.infer(image)
    runner.recompute(1)
    assert (labels == gpu_session.open_torch("cpu", precision="f32").infer(image)).mean() > 0.999


def test_without_a_gpu_the_script_ends_with_one_line(gpu_session: ModuleType, tmp_path: Path) -> None:
    if gpu_session.find_gpu():
        pytest.skip("there is a GPU")
    process = run_script("--out", str(tmp_path / "report.json"))
    assert process.returncode == 1
    assert process.stderr.startswith("gpu_session.py: no NVIDIA GPU")
    assert process.stderr.count("\n") == 1


@pytest.mark.gpu
def test_the_script_measures_a_gpu(gpu_session: ModuleType, tmp_path: Path) -> None:
    if not gpu_session.find_gpu():
        pytest.skip("there is no GPU")
    path = tmp_path / "report.json"
    process = run_script("--budget-s", "90", "--seconds", "0.1", "--out", str(path))
    assert process.returncode == 0, process.stderr
    report = read_report(path)
    assert report["machine"]["gpu"]["name"]
    assert report["parts"]["torch fp16, CUDA graph"]["labels_equal"]["share"] > 0.99
