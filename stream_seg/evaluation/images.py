"""Measure the accuracy of a network on labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table

from stream_seg.backends.engine import Engine
from stream_seg.datasets.labelled import list_pairs, read_pair
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix, format_percent
from stream_seg.engines.open import open_engine
from stream_seg.network.network import bias_network, open_network
from stream_seg.ops.labels import resize_labels, upsampled_argmax
from stream_seg.stages.segment import segment_image
from stream_seg.types import Image, Labels
from stream_seg.zoo import refuse_untrained


def evaluate_images(
    network: str | Path | Mapping[str, Any],
    data: Path,
    *,
    split: str = "val",
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    size: tuple[int, int] | None = None,
    prefer: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the metrics of `network` on DATA/SPLIT. Raises SourceError, NetworkError or ConfigError.

    `size` = (height, width) replaces the size of its input; `prefer` is added to its scores, by class.

    Keys: network, backend, precision, device, split, images, miou, pixel_accuracy, class_accuracy, class_iou {name: IoU
    or None for a class neither in the truth nor in a prediction}. Shares are of the labelled pixels, 0 to 1.
    """
    refuse_untrained(network)
    list_pairs(data, split)  # report missing files before a network is compiled
    biased = bias_network(open_network(network, size=size), prefer, where="prefer")
    with open_engine(biased, backend=backend, precision=precision, threads=threads) as engine:
        return evaluate_engine(engine, data, split=split)


def evaluate_engine(engine: Engine, data: Path, *, split: str) -> dict[str, Any]:
    """Return the result of `evaluate_images` for an open engine."""
    paths, info = list_pairs(data, split), engine.spec.info
    pairs = (read_pair(*pair, classes=len(engine.spec.classes)) for pair in paths)
    engine_info = {"network": info.network, "backend": info.backend, "precision": info.precision, "device": info.device}
    return {**engine_info, "split": split, "images": len(paths), **score_images(engine, pairs)}


def score_images(engine: Engine, pairs: Iterable[tuple[Image, Labels]]) -> dict[str, Any]:
    """Return miou, pixel_accuracy, class_accuracy and class_iou, as `evaluate_images`, of images with their labels."""
    classes = engine.spec.classes
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    for image, truth in pairs:
        semantic = segment_image(image, engine)
        if semantic.scores is not None:
            predicted = upsampled_argmax(semantic.scores, truth.shape)
        else:
            predicted = resize_labels(semantic.labels, truth.shape)
        matrix += confusion_matrix(truth, predicted, classes=len(classes))
    return compute_metrics(matrix, classes)


def tabulate_images(results: Mapping[str, Any]) -> Table:
    """Return the result of `evaluate_images` as a table for a terminal, in percent."""
    caption = f"{results['images']} images, {results['backend']}, {results['precision']}"
    table = Table("class", title=f"{results['network']} on {results['split']}", caption=caption)
    table.add_column("IoU %", justify="right")
    for name, iou in results["class_iou"].items():
        table.add_row(name, format_percent(iou), end_section=name == list(results["class_iou"])[-1])
    table.add_row("mean IoU", format_percent(results["miou"]), style="bold")
    table.add_row("mean class accuracy", format_percent(results["class_accuracy"]))
    table.add_row("pixel accuracy", format_percent(results["pixel_accuracy"]))
    return table
