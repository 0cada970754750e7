"""Every benchmark command of the README runs; with so few frames the figures mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.test_images import write_pair

FOLDER = Path(__file__).parents[1] / "benchmarks"
KEYS = {
    "pipeline.py --frames 2 --rounds 1 --busy-ok": {"ratio", "cpu_ms", "ratio_io", "agreement", "load"},
    "graph.py --frames 3 --rounds 1": {"overhead_ms", "graph_share"},
    "target.py --calm 1 --busy 1": {"target", "control"},
    "overlay.py --frames 10": {"cpu_ms", "parts_ms", "ratio"},
    "capture.py --frames 3 --rounds 1": {"cpu_ms", "rounds"},
    "temporal.py --frames 6": {"policies", "unsmoothed", "weights", "smooth_ms"},
    "keys.py --frames 6": {"network", "drives"},
    "outputs.py --runs 1": {"cpu_ms", "ratio"},
}


def test_lights_runs_and_every_change_of_light_matters(tmp_path: Path) -> None:
    write_pair(tmp_path, "a.png", np.random.default_rng(0).integers(0, 11, (96, 128), np.uint8))
    arguments = [sys.executable, str(FOLDER / "lights.py"), "--data", str(tmp_path), "--json", str(tmp_path / "l.json")]
    subprocess.run(arguments, check=True, capture_output=True, timeout=110)
    miou = json.loads((tmp_path / "l.json").read_text(encoding="utf-8"))["miou"]["road"]
    assert len(miou) == len({*miou.values()}) == 9


def test_prefer_increases_the_mean(tmp_path: Path) -> None:
    truth = np.zeros((96, 128), np.uint8)
    truth[:, 64:] = 8
    for number in range(4):
        write_pair(tmp_path, f"{number}.png", truth)
    recipe = {"network": "road", "data": str(tmp_path), "split": "val", "held_back": 0.5, "steps": 1000}
    spec = {"mean": [0.4] * 3, "std": [0.3] * 3}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe | spec), encoding="utf-8")
    arguments = [sys.executable, str(FOLDER / "prefer.py"), str(tmp_path / "r.yaml"), "--network", "road"]
    subprocess.run([*arguments, "--json", str(tmp_path / "p.json")], check=True, capture_output=True, timeout=110)
    miou = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert miou["after"]["miou"] > miou["before"]["miou"]


def test_speeds_of_the_encoder_differ_as_documented(tmp_path: Path) -> None:
    """Sizes in units of `balanced`, and differences of SSIM; they do not depend on the load of the machine."""
    options = ["--size", "320x180", "--frames", "24", "--rounds", "1", "--busy-ok", "--json"]
    arguments = [sys.executable, str(FOLDER / "encoder.py"), *options, str(tmp_path / "e.json")]
    subprocess.run(arguments, check=True, capture_output=True, timeout=110)
    rows = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["clips"]["320x180"]
    assert rows["small"]["size"] < 0.85 < 1 < rows["fast"]["size"] < 1.6
    assert 0.8 < rows["crf 20"]["size"] < 1.2
    assert max(abs(row["difference"]) for row in rows.values()) < 0.005
    assert min(row["ssim"] for row in rows.values()) > 0.95


@pytest.mark.parametrize("script", ["lights.py --json", "gpu_session.py --device cpu --out"])
def test_figures_that_exist_are_not_replaced(script: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("of an earlier run", encoding="utf-8")
    name, *options = script.split()
    done = subprocess.run([sys.executable, FOLDER / name, *options, path], capture_output=True, text=True, timeout=110)
    assert (done.returncode, done.stderr.count("\n"), f"{path} exists; remove it" in done.stderr) == (1, 1, True)
    assert path.read_text(encoding="utf-8") == "of an earlier run"


@pytest.mark.parametrize("command", KEYS)
def test_a_benchmark_runs(command: str, tmp_path: Path) -> None:
    script, *options = command.split()
    arguments = [sys.executable, str(FOLDER / script), *options, "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert KEYS[command] <= figures.keys()
    assert figures["machine"]["cores"] >= 1
