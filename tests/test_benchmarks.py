"""Every benchmark runs: with few frames its figures say nothing, but a command in the README that fails says less."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
KEYS = {
    "pipeline.py --frames 2 --rounds 1": {"ratio", "cpu_ms", "ratio_io", "agreement"},
    "graph.py --frames 3 --rounds 1": {"overhead_ms", "graph_share"},
    "target.py --calm 1 --busy 1": {"target", "control"},
    "overlay.py --frames 10": {"cpu_ms", "ratio"},
    "temporal.py --frames 6": {"policies", "weights", "smooth_ms"},
    "sustained.py --frames 3": {"file_to_mp4", "without_encode", "start"},
}


@pytest.mark.parametrize("command", KEYS)
def test_a_benchmark_runs(command: str, tmp_path: Path) -> None:
    script, *options = command.split()
    arguments = [sys.executable, str(FOLDER / script), *options, "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert KEYS[command] <= figures.keys()
    assert figures["machine"]["cores"] >= 1
