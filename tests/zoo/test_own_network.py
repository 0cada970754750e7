"""Test that a new network needs one file and one entry of BUILDERS to be listed, measured, trained and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor, nn

from stream_seg.zoo import BUILDERS
from stream_seg.zoo.registry import Builder
from tests.support.coloured_fields import coloured_fields, recipe_file, write_split
from tests.support.program import read_json, run_cli


class TinyNet(nn.Module):
    """Scores at half the input's size, from one convolution."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, classes, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.score(image)
        return scores


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch and nncf
def test_an_entry_is_all_that_a_network_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = Builder(f"{__name__}:TinyNet", "one convolution", "tests", 2026, 2, 56, "counted here", stride=2)
    monkeypatch.setitem(BUILDERS, "tiny", entry)
    assert run_cli("networks", "--json", tmp_path / "networks.json") == 0
    assert read_json(tmp_path / "networks.json")["zoo"][-1]["idea"] == "one convolution"
    bench = ("--size", "64x96", "-b", "onnxruntime", "-p", "f32", "--seconds", 0.01)
    assert run_cli("bench", "tiny", *bench) == 0
    write_split(tmp_path, coloured_fields(8), "train")
    assert run_cli("train", recipe_file(tmp_path, network="tiny"), "--out", tmp_path / "out") == 0
    assert run_cli("export", "tiny", "--weights", tmp_path / "out" / "last.pt", "--out", tmp_path / "again.onnx") == 0
    assert read_json(tmp_path / "again.json")["size"] == [64, 96]
