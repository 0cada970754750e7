"""Networks with several outputs, compared with the same combination in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.network.test_wrap import error_of, run_onnx
from tests.support import small_networks


def test_a_class_of_two_heads_is_found_by_either(tmp_path: Path) -> None:
    heads = [{"output": "area", "channels": small_networks.CLASSES}, {"output": "more", "channels": [None, "sky"]}]
    model = small_networks.make_model(outputs={"area": 3, "more": 2}, batch=1)
    image = small_networks.make_image()
    sidecar = {"classes": small_networks.CLASSES, "heads": heads, "mean": [0.5] * 3}
    scores = run_onnx(small_networks.write_network(tmp_path, model, sidecar), image)["scores"][0]
    area, more = (
        small_networks.expected_scores(image, 3, mean=0.5),
        small_networks.expected_scores(image, 2, seed=1, mean=0.5),
    )
    first, second = area.argmax(0) == 2, more.argmax(0) == 1
    assert (first & ~second).any()
    assert (second & ~first).any()
    np.testing.assert_array_equal(scores.argmax(0), np.where(second, 2, area.argmax(0)))
    np.testing.assert_allclose(scores[:2], area[:2], atol=1e-3)


@pytest.mark.parametrize("threshold", [0.9, 0.0])
def test_a_threshold_needs_a_single_channel(tmp_path: Path, threshold: float) -> None:
    head = {"output": "out", "channels": small_networks.CLASSES, "threshold": threshold}
    message = error_of(tmp_path, small_networks.make_model(outputs={"out": 3}), heads=[head])
    assert "mine.yaml: heads: threshold: output out has 3 channels, not one; remove it" in message
