"""Tests of docs/networks.md and of its image, and of the scripts that write them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.network.shipped import SHIPPED
from stream_seg.zoo import BUILDERS
from tests.support.program import read_json

ROOT = Path(__file__).parents[1]
ROADS = "synth://road?size=160x120&seed=7"


def run_script(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script of benchmarks/ and check its exit code."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == code, done.stderr
    return done


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    run_script("networks.py", "--write", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page == (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    for name in BUILDERS:
        assert f"| [{name}](" in page


def test_measuring_a_network_keeps_the_figures_of_others(tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_text('{"unet": {"ms": {"f32": 12345.0, "bf16": null, "int8": 2.0}, "cpu": "x", "load": 0}}')
    run_script("networks.py", "road", "--seconds", 0, "--results", known, "--write", tmp_path / "page.md")
    measured = read_json(known)
    assert measured["unet"]["ms"]["f32"] == 12345.0
    assert measured["road"]["ms"]["f32"] > measured["road"]["ms"]["int8"] > 0
    unet, road = (
        next(line for line in (tmp_path / "page.md").read_text(encoding="utf-8").splitlines() if f"| [{name}](" in line)
        for name in ("unet", "road")
    )
    assert "| 12345.0 † |  | 2.0 † |" in unet  # measured on another CPU
    assert f"| {measured['road']['ms']['f32']:.1f} |" in road


def test_an_unknown_network_is_refused() -> None:
    assert "networks.py: unknown network 'rode'; known: road" in run_script("networks.py", "rode", code=1).stderr
    assert "unknown network 'rode'" in run_script("side_by_side.py", "train", "rode", code=1).stderr


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Return the folder of a training with the road network finished."""
    (tmp_path / "road").mkdir()
    for name in ("road.onnx", "road.json"):
        shutil.copy(SHIPPED / name, tmp_path / "road" / name)
    (tmp_path / "road" / "val.json").write_text('{"miou": 0.5}')
    return tmp_path


def test_networks_side_by_side(trained: Path) -> None:
    """There are three tiles, image, truth and network, of 360 rows and 32 for the name, and 32 rows for the classes."""
    path = trained / "side.png"
    run_script("side_by_side.py", "draw", "--out", trained, "--input", f"{ROADS}&truth=1", "--write", path)
    sheet = cv2.imread(str(path))
    assert sheet is not None
    assert sheet.shape == (392 + 32, 3 * 480, 3)
    tiles = np.split(sheet, 3, axis=1)
    assert not np.array_equal(tiles[0], tiles[1])
    same = np.abs(tiles[1][:360].astype(int) - tiles[2][:360]).max(2) < 8
    assert 0.5 < same.mean() < 1  # mostly correct


def test_masks_show_nothing_of_the_image(trained: Path) -> None:
    path = trained / "masks.png"
    run_script("side_by_side.py", "draw", "--out", trained, "--input", ROADS, "--masks", "--write", path)
    sheet = cv2.imread(str(path))
    assert sheet is not None
    assert sheet.shape == (392 + 2 * 32, 480, 3)
    colours = {tuple(colour)[::-1] for colour in read_json(SHIPPED / "road.json")["palette"]}
    pixels = sheet[:360].reshape(-1, 3)
    exact = [tuple(pixel) in colours for pixel in pixels.tolist()]
    assert np.mean(exact) > 0.9  # the others are on edges of the scaled tile


def test_without_trained_networks_the_script_tells_how_to_train_one(tmp_path: Path) -> None:
    done = run_script("side_by_side.py", "draw", "--out", tmp_path, code=1)
    assert "no network is trained there; python benchmarks/side_by_side.py train road" in done.stderr
