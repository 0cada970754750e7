"""The Python of the model card: labels from the shipped ONNX in another runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.network.shipped import SHIPPED
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.stages.segment import Segment
from stream_seg.stages.synthetic import Synthetic

TEXT = (SHIPPED / "road.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("size", [(384, 640), (540, 960), (96, 128), (193, 321)])
def test_its_labels_are_those_of_the_pipeline_at_any_size(size: tuple[int, int]) -> None:
    namespace: dict[str, Any] = {}
    exec(BLOCKS[0], namespace)
    rng = np.random.default_rng(0)
    scores = cv2.GaussianBlur(rng.normal(size=(192, 320, 11)).astype(np.float32), (0, 0), 4).transpose(2, 0, 1)
    scores = np.ascontiguousarray(scores)
    labels = namespace["label_map"](scores, size[::-1])
    assert labels.dtype == np.uint8
    assert np.bincount(labels.ravel(), minlength=11).min() > 0.02 * labels.size
    assert np.mean(labels == upsampled_argmax(scores, size)) > 0.999  # but for rounding


def test_it_labels_an_image_with_onnx_runtime_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (frame,) = Synthetic(width=1280, height=768, frames=1)(iter(()))
    cv2.imwrite(str(tmp_path / "street.png"), frame.image)
    (tmp_path / "road.onnx").symlink_to(SHIPPED / "road.onnx")
    monkeypatch.chdir(tmp_path)
    assert not any("stream_seg" in block for block in BLOCKS)
    namespace: dict[str, Any] = {}
    exec("\n".join(BLOCKS), namespace)
    (segmented,) = Segment(backend="onnxruntime", precision="f32")(iter([frame]))
    assert namespace["labels"].shape == (768, 1280)
    assert np.mean(namespace["labels"] == segmented.labels) > 0.999
