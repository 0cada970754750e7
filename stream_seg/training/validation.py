"""Score a network as `stream-seg eval` does, and draw samples of its labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from stream_seg.datasets.labelled import Pairs
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix
from stream_seg.engines.open import open_engine
from stream_seg.files import replace_file
from stream_seg.network.network import open_network
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.ops.resize import resize_image
from stream_seg.stages.segment import segment_image
from stream_seg.types import VOID, Classes, Image, Labels
from stream_seg.zoo.weights.normalise import InputSpec, Normalise

Predict = Callable[[Image, tuple[int, int]], Labels]
"""Computes the labels of an image at (height, width)."""
SAMPLES, WIDTH, MAX_HEIGHT = 4, 320, 640
"""Images in samples.png, and the width and the largest height of each."""


def score(predict: Predict, pairs: Pairs, classes: Classes) -> dict[str, Any]:
    """Return the figures of `stream_seg.datasets.scoring.figures` for the labels that `predict` computes."""
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    for image, truth in zip(pairs.images, pairs.labels, strict=True):
        matrix += confusion_matrix(truth, predict(image, truth.shape), classes=len(classes))
    return compute_metrics(matrix, classes)


def score_engine(onnx: Path, pairs: Pairs, *, precision: str) -> dict[str, Any]:
    """Return the figures of an exported network, run as the pipeline runs it."""
    with open_engine(open_network(onnx), precision=precision) as engine:

        def predict(image: Image, size: tuple[int, int]) -> Labels:
            scores = segment_image(image, engine).scores
            assert scores is not None, "an exported network has scores"
            return upsampled_argmax(scores, size)

        return score(predict, pairs, engine.spec.classes)


def torch_predictor(net: nn.Module, spec: InputSpec, size: tuple[int, int]) -> Predict:
    """Return a function that runs `net` in float32 on images resized to `size` as the pipeline does."""
    device = next(net.parameters()).device
    normalise = Normalise(spec).to(device)

    @torch.inference_mode()
    def predict(image: Image, full_size: tuple[int, int]) -> Labels:
        scores = net(normalise(torch.from_numpy(resize_image(image, size)[None]).to(device)))
        return upsampled_argmax(scores[0].float().cpu().contiguous().numpy(), full_size)

    return predict


def draw_samples(path: Path, predict: Predict, pairs: Pairs, classes: Classes) -> None:
    """Write a PNG of some images, a row each: image, truth, prediction (VOID as in the truth). Raises OutputError."""
    rows = []
    for index in np.linspace(0, len(pairs) - 1, min(SAMPLES, len(pairs))).astype(int):
        image, truth = pairs[int(index)]
        labels = np.where(truth == VOID, VOID, predict(image, truth.shape))
        height = min(MAX_HEIGHT, max(1, round(WIDTH * truth.shape[0] / truth.shape[1])))
        row = (image, classes.bgr[truth], classes.bgr[labels])
        rows.append(np.hstack([cv2.resize(part, (WIDTH, height), interpolation=cv2.INTER_AREA) for part in row]))
    replace_file(path, cv2.imencode(".png", np.vstack(rows))[1].tobytes())
