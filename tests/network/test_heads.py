"""Outputs of a network and the classes that they mean, against the same in plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.network.test_wrap import computed, refused
from tests.support import small_networks as tiny


def test_a_class_of_two_heads_is_there_where_either_says_it(tmp_path: Path) -> None:
    heads = [{"output": "area", "channels": tiny.CLASSES}, {"output": "more", "channels": [None, "sky"]}]
    model = tiny.network(outputs={"area": 3, "more": 2}, batch=1)
    image = tiny.picture()
    sidecar = {"classes": tiny.CLASSES, "heads": heads, "mean": [0.5] * 3}
    got = computed(tiny.write(tmp_path, model, sidecar), image)["scores"][0]
    area, more = tiny.said(image, 3, mean=0.5), tiny.said(image, 2, seed=1, mean=0.5)
    first, second = area.argmax(0) == 2, more.argmax(0) == 1
    assert (first & ~second).any()
    assert (second & ~first).any()
    np.testing.assert_array_equal(got.argmax(0), np.where(second, 2, area.argmax(0)))
    np.testing.assert_allclose(got[:2], area[:2], atol=1e-3)


@pytest.mark.parametrize("threshold", [0.9, 0.0])
def test_a_threshold_is_for_a_single_channel(tmp_path: Path, threshold: float) -> None:
    head = {"output": "out", "channels": tiny.CLASSES, "threshold": threshold}
    told = refused(tmp_path, tiny.network(outputs={"out": 3}), heads=[head])
    assert "mine.yaml: heads: threshold: output out needs a single channel for it, it has 3; leave it out" in told
