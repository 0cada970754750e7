"""The soak runs, and notices what it is there for."""

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
    """benchmarks/soak.py, which as a program finds its neighbours beside it."""
    monkeypatch.syspath_prepend(FOLDER)
    yield import_module("soak")
    for name in ("soak", "cameras", "surroundings"):
        sys.modules.pop(name, None)


def judged(
    soak: ModuleType, *, growth_mb: float = 0.0, threads: float = 0.0, files: float = 0.0, age: float = 0.0
) -> str:
    """What is said of ten minutes in which each grows by so much a minute."""
    glances = [
        soak.Glance(s, 400 + growth_mb * s / 60 + s % 3, int(20 + threads * s / 60), int(30 + files * s / 60))
        for s in range(600)
    ]
    ages = {minute: [30.0 + age * minute] * 60 for minute in range(10)}
    slope_mb = soak.slope(glances, 2)
    return "; ".join(soak.past(soak.rows(glances, ages), slope_mb=slope_mb, warm_up=2))


def test_what_grows_is_past_its_limit_and_what_stays_is_not(soak: ModuleType) -> None:
    assert judged(soak) == ""
    assert judged(soak, growth_mb=0.9, threads=0.2, files=0.2, age=1) == ""
    assert "memory grows by 1.1" in judged(soak, growth_mb=1.1)
    assert judged(soak, threads=1).startswith("threads differ")
    assert judged(soak, files=1).startswith("files differ")
    assert judged(soak, age=10).startswith("the age grows")


def test_it_runs_and_cuts_the_idle_viewer_off(tmp_path: Path) -> None:
    """So short that its limits say nothing."""
    path = tmp_path / "figures.json"
    options = ["--minutes", "0.3", "--warm-up", "0", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "soak.py"), *options], capture_output=True, text=True, timeout=110
    )
    if "GStreamer" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert path.exists(), done.stderr
    figures = json.loads(path.read_text())
    assert bool(figures["past"]) == bool(done.returncode), done.stderr
    assert figures["rows"][0]["frames"] > 20
    assert figures["viewers_dropped"] >= 1
