"""How often a network is right: its labels against those of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table

from stream_seg.backends.engine import Engine
from stream_seg.datasets.labelled import pair_paths, read_pair
from stream_seg.datasets.scoring import confusion, figures, percent
from stream_seg.engines.open import open_engine
from stream_seg.network.network import open_network, preferring
from stream_seg.ops.labels import resized_labels, upsampled_argmax
from stream_seg.stages.segment import segmented
from stream_seg.types import Image, Labels


def evaluate(
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
    """Figures of `network` on DATA/SPLIT. Raises SourceError, NetworkError or ConfigError.

    `size` = (height, width) of its input, in place of its own; `prefer` is added to its scores, by class.

    Keys: network, backend, precision, device, split, images, miou, pixel_accuracy, class_accuracy, class_iou {name: IoU
    or null for a class that is neither in the truth nor in a prediction}. Shares from 0 to 1 of the labelled pixels.
    """
    pair_paths(data, split)  # what is missing is said before a network is compiled
    opened = preferring(open_network(network, size=size), prefer, where="prefer")
    with open_engine(opened, backend=backend, precision=precision, threads=threads) as engine:
        return evaluated(engine, data, split=split)


def evaluated(engine: Engine, data: Path, *, split: str) -> dict[str, Any]:
    """`evaluate` with an engine that is open."""
    paths, info = pair_paths(data, split), engine.spec.info
    pairs = (read_pair(*pair, classes=len(engine.spec.classes)) for pair in paths)
    told = {"network": info.network, "backend": info.backend, "precision": info.precision, "device": info.device}
    return {**told, "split": split, "images": len(paths), **scored(engine, pairs)}


def scored(engine: Engine, pairs: Iterable[tuple[Image, Labels]]) -> dict[str, Any]:
    """miou, pixel_accuracy, class_accuracy and class_iou of `evaluate`, of pictures with their label maps."""
    classes = engine.spec.classes
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    for image, truth in pairs:
        semantic = segmented(image, engine)
        if semantic.scores is not None:
            predicted = upsampled_argmax(semantic.scores, truth.shape)
        else:
            predicted = resized_labels(semantic.labels, truth.shape)
        matrix += confusion(truth, predicted, classes=len(classes))
    return figures(matrix, classes)


def as_table(found: Mapping[str, Any]) -> Table:
    """The figures of `evaluate` for a terminal, in percent."""
    told = f"{found['images']} images, {found['backend']}, {found['precision']}"
    table = Table("class", title=f"{found['network']} on {found['split']}", caption=told)
    table.add_column("IoU %", justify="right")
    for name, iou in found["class_iou"].items():
        table.add_row(name, percent(iou), end_section=name == list(found["class_iou"])[-1])
    table.add_row("mean IoU", percent(found["miou"]), style="bold")
    table.add_row("mean class accuracy", percent(found["class_accuracy"]))
    table.add_row("pixel accuracy", percent(found["pixel_accuracy"]))
    return table
