"""From a folder of labelled pictures to a network in the pipeline, with the command that a user types."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from stream_seg.errors import ConfigError
from stream_seg.stages.segment import Segment
from stream_seg.training.__main__ import built, main
from tests.drawn import frame

RECIPE = {
    "network": "lraspp_mobilenet",
    "mean": [0.4, 0.4, 0.4],
    "std": [0.3, 0.3, 0.3],
    "size": [64, 96],
    "crop": [64, 96],
    "batch": 2,
    "steps": 2,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's and nncf's own making
def test_a_network_of_the_zoo_is_trained_exported_and_run(tmp_path: Path) -> None:
    for folder, shape in (("train", (64, 96, 3)), ("trainannot", (64, 96))):
        (tmp_path / folder).mkdir()
        for number in range(6):
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), np.full(shape, number, np.uint8))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "data": str(tmp_path)}))
    main(recipe, tmp_path / "out")
    for precision in ("f32", "int8"):
        stage = Segment(network=str(tmp_path / "out" / "lraspp_mobilenet.onnx"), precision=precision)  # type: ignore[arg-type]
        (segmented,) = stage(iter([frame(3, size=(48, 70))]))
        assert segmented.semantic is not None
        assert segmented.semantic.labels.shape == (64, 96)
        assert segmented.semantic.engine.precision == precision


def test_a_network_that_is_none() -> None:
    with pytest.raises(ConfigError, match="recipe: network: unknown 'lenet'; known: road, fcn32s"):
        built("lenet", 11, where="recipe")
