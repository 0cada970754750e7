"""benchmarks/soak.py runs, and detects growth of memory, threads, files and frame age."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module benchmarks/soak.py, which imports other files of its folder."""
    monkeypatch.syspath_prepend(FOLDER)
    yield import_module("soak")
    for name in ("soak", "cameras", "surroundings"):
        sys.modules.pop(name, None)


def faults_of_growth(
    soak: ModuleType, *, growth_mb: float = 0.0, threads: float = 0.0, files: float = 0.0, age: float = 0.0
) -> str:
    """Return the faults of ten minutes in which each quantity grows by so much per minute."""
    samples = [
        soak.Sample(s, 400 + growth_mb * s / 60 + s % 3, int(20 + threads * s / 60), int(30 + files * s / 60))
        for s in range(600)
    ]
    ages = {minute: [30.0 + age * minute] * 60 for minute in range(10)}
    slope_mb = soak.fit_slope(samples, 2)
    return "; ".join(soak.find_faults(soak.make_rows(samples, ages), slope_mb=slope_mb, warm_up=2))


def test_growth_beyond_a_limit_is_a_fault(soak: ModuleType) -> None:
    assert faults_of_growth(soak) == ""
    assert faults_of_growth(soak, growth_mb=0.9, threads=0.2, files=0.2, age=1) == ""
    assert "memory grows by 1.1" in faults_of_growth(soak, growth_mb=1.1)
    assert faults_of_growth(soak, threads=1).startswith("threads differ")
    assert faults_of_growth(soak, files=1).startswith("files differ")
    assert faults_of_growth(soak, age=10).startswith("the age grows")


def test_a_short_run_disconnects_the_viewer_that_reads_nothing(tmp_path: Path) -> None:
    """It is too short for its limits to mean anything."""
    path = tmp_path / "figures.json"
    options = ["--minutes", "0.3", "--warm-up", "0", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "soak.py"), *options], capture_output=True, text=True, timeout=110
    )
    if "GStreamer" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert path.exists(), done.stderr
    figures = json.loads(path.read_text())
    assert bool(figures["faults"]) == bool(done.returncode), done.stderr
    assert figures["rows"][0]["frames"] > 20
    assert figures["viewers_dropped"] >= 1
