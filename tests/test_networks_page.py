"""docs/networks.md and the picture beside it: what their scripts make of networks and figures."""

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


def script(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A script of benchmarks/ that ends as it should."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == code, done.stderr
    return done


def test_the_page_is_what_its_script_writes(tmp_path: Path) -> None:
    script("networks.py", "--write", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page == (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    for name in BUILDERS:
        assert f"| [{name}](" in page


def test_a_network_is_measured_and_those_before_it_are_kept(tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_text('{"unet": {"ms": {"f32": 12345.0, "bf16": null, "int8": 2.0}, "cpu": "x", "load": 0}}')
    script("networks.py", "road", "--seconds", 0, "--results", known, "--write", tmp_path / "page.md")
    measured = read_json(known)
    assert measured["unet"]["ms"]["f32"] == 12345.0
    assert measured["road"]["ms"]["f32"] > measured["road"]["ms"]["int8"] > 0
    unet, road = (
        next(line for line in (tmp_path / "page.md").read_text(encoding="utf-8").splitlines() if f"| [{name}](" in line)
        for name in ("unet", "road")
    )
    assert "| 12345.0 † |  | 2.0 † |" in unet  # of another CPU
    assert f"| {measured['road']['ms']['f32']:.1f} |" in road


def test_a_name_that_is_none_is_one_line() -> None:
    assert "networks.py: unknown network 'rode'; known: road" in script("networks.py", "rode", code=1).stderr
    assert "unknown network 'rode'" in script("side_by_side.py", "train", "rode", code=1).stderr


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a training of which the road network is done."""
    (tmp_path / "road").mkdir()
    for name in ("road.onnx", "road.json"):
        shutil.copy(SHIPPED / name, tmp_path / "road" / name)
    (tmp_path / "road" / "val.json").write_text('{"miou": 0.5}')
    return tmp_path


def test_networks_side_by_side(trained: Path) -> None:
    """Three tiles: the picture, its truth, the network; 360 lines of each, 32 for its name, and 32 for the classes."""
    picture = trained / "side.png"
    script("side_by_side.py", "draw", "--out", trained, "--input", f"{ROADS}&truth=1", "--write", picture)
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape == (392 + 32, 3 * 480, 3)
    tiles = np.split(drawn, 3, axis=1)
    assert not np.array_equal(tiles[0], tiles[1])
    same = np.abs(tiles[1][:360].astype(int) - tiles[2][:360]).max(2) < 8
    assert 0.5 < same.mean() < 1  # most of it is right, not all


def test_of_masks_alone_nothing_of_the_picture_is_left(trained: Path) -> None:
    picture = trained / "masks.png"
    script("side_by_side.py", "draw", "--out", trained, "--input", ROADS, "--masks", "--write", picture)
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape == (392 + 2 * 32, 480, 3)
    colours = {tuple(colour)[::-1] for colour in read_json(SHIPPED / "road.json")["palette"]}
    pixels = drawn[:360].reshape(-1, 3)
    exact = [tuple(pixel) in colours for pixel in pixels.tolist()]
    assert np.mean(exact) > 0.9  # the rest lies on edges, where the tile was scaled


def test_nothing_trained_says_how_to_begin(tmp_path: Path) -> None:
    done = script("side_by_side.py", "draw", "--out", tmp_path, code=1)
    assert "no network is trained there; python benchmarks/side_by_side.py train road" in done.stderr
