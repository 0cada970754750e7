"""How good a network is so far: scored as `stream-seg eval` does, on pictures that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from stream_seg.datasets.labelled import Pairs
from stream_seg.datasets.scoring import confusion, figures
from stream_seg.engines.open import open_engine
from stream_seg.files import replace_file
from stream_seg.network.network import open_network
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.ops.resize import reduced
from stream_seg.stages.segment import segmented
from stream_seg.types import VOID, Classes, Image, Labels
from stream_seg.zoo.weights.normalise import InputSpec, Normalise

Predict = Callable[[Image, tuple[int, int]], Labels]
"""The labels of a picture, at (height, width)."""
SHOWN, WIDTH, HEIGHT = 4, 320, 640
"""Pictures of a sample, the width of each, and its height at most."""


def scored(predict: Predict, pairs: Pairs, classes: Classes) -> dict[str, Any]:
    """The figures of `stream_seg.datasets.scoring.figures` for what `predict` says of `pairs`."""
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    for image, truth in zip(pairs.images, pairs.labels, strict=True):
        matrix += confusion(truth, predict(image, truth.shape), classes=len(classes))
    return figures(matrix, classes)


def engine_figures(onnx: Path, pairs: Pairs, *, precision: str) -> dict[str, Any]:
    """The figures of an exported network, run as the pipeline runs it."""
    with open_engine(open_network(onnx), precision=precision) as engine:

        def predict(image: Image, size: tuple[int, int]) -> Labels:
            scores = segmented(image, engine).scores
            assert scores is not None, "an exported network gives scores"
            return upsampled_argmax(scores, size)

        return scored(predict, pairs, engine.spec.classes)


def by_torch(net: nn.Module, spec: InputSpec, size: tuple[int, int]) -> Predict:
    """What `net` says, as float32, of pictures scaled to `size` as the pipeline does it."""
    device = next(net.parameters()).device
    prepare = Normalise(spec).to(device)

    @torch.inference_mode()
    def predict(image: Image, full: tuple[int, int]) -> Labels:
        scores = net(prepare(torch.from_numpy(reduced(image, size)[None]).to(device)))
        return upsampled_argmax(scores[0].float().cpu().contiguous().numpy(), full)

    return predict


def draw_samples(path: Path, predict: Predict, pairs: Pairs, classes: Classes) -> None:
    """Write a PNG: a row for each of some pictures, picture | truth | prediction. Raises OutputError."""
    rows = []
    for index in np.linspace(0, len(pairs) - 1, min(SHOWN, len(pairs))).astype(int):
        image, truth = pairs[int(index)]
        said = np.where(truth == VOID, VOID, predict(image, truth.shape))  # void is shown as what it is: not counted
        height = min(HEIGHT, max(1, round(WIDTH * truth.shape[0] / truth.shape[1])))
        row = (image, classes.bgr[truth], classes.bgr[said])
        rows.append(np.hstack([cv2.resize(part, (WIDTH, height), interpolation=cv2.INTER_AREA) for part in row]))
    replace_file(path, cv2.imencode(".png", np.vstack(rows))[1].tobytes())
