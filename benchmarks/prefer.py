"""Find the per-class bias (`prefer`) that maximizes the mean IoU of a network on images held back from training.

    stream-seg train configs/train/road_camvid_held.yaml
    python benchmarks/prefer.py configs/train/road_camvid_held.yaml

The likeliest class does not maximize the mean IoU: the best threshold of a class with IoU J is a probability of
J / (1 + J), as it is half of F1 for F1 (Lipton, Elkan, Naryanaswamy, ECML 2014, section 4). The bias is chosen on the
images of the recipe's `held_back`, and checked by choosing it on one half of them and measuring on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

from stream_seg.backends.engine import Engine
from stream_seg.datasets.labelled import read_pairs
from stream_seg.datasets.scoring import compute_metrics, format_percent
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import open_network
from stream_seg.stages.segment import segment_image
from stream_seg.training.recipe import read_recipe
from stream_seg.training.setup import split_held_back
from stream_seg.types import VOID, Classes, Image, Labels

STEPS = np.arange(-1, 3.01, 0.25, dtype=np.float32)
ROUNDS = 3
"""Passes over all classes."""


@dataclass(frozen=True)
class Pixels:
    """Scores, float16 (C, n), and ground truth, int64 (n,), of the labelled pixels of images."""

    scores: torch.Tensor
    truth: torch.Tensor
    classes: Classes

    @classmethod
    def concatenate(cls, parts: Sequence[Pixels]) -> Pixels:
        """Return the pixels of all parts."""
        truth = torch.cat([part.truth for part in parts])
        return cls(torch.cat([part.scores for part in parts], 1), truth, parts[0].classes)

    def confusion(self, bias: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the confusion matrix with `bias` added to the scores."""
        predicted = (self.scores + torch.from_numpy(bias)[:, None].half()).argmax(0)
        count = len(self.classes) + 1
        return torch.bincount(self.truth * count + predicted, minlength=(count - 1) * count).view(-1, count).numpy()

    def by_step(self, bias: NDArray[np.float32], label: int) -> list[NDArray[np.int64]]:
        """Return confusion matrices with each of STEPS as bias of `label`."""
        scores = self.scores + torch.from_numpy(bias)[:, None].half()
        own = self.scores[label].float()
        scores[label] = -torch.inf
        best, other = scores.max(0)
        needed = torch.bucketize((best.float() - own).contiguous(), torch.from_numpy(STEPS))
        count = len(self.classes)
        cells = (needed * count + self.truth) * count + other
        table = torch.bincount(cells, minlength=(len(STEPS) + 1) * count * count).view(-1, count, count).numpy()
        matrices = []
        for step in range(len(STEPS)):
            matrix = np.zeros((count, count + 1), np.int64)
            matrix[:, :count] = table[step + 1 :].sum(0)
            matrix[:, label] += table[: step + 1].sum((0, 2))
            matrices.append(matrix)
        return matrices


def segment_pixels(image: Image, truth: Labels, engine: Engine) -> Pixels:
    """Return the pixels of an image, with scores of an engine at the size of its labels."""
    scores = segment_image(image, engine).scores
    if scores is None:
        raise NetworkError("the network yields labels without scores; a class bias needs scores")
    low = torch.from_numpy(np.array(scores, np.float32))[None]
    full = torch.nn.functional.interpolate(low, truth.shape, mode="bilinear", align_corners=False)[0]
    labelled = torch.from_numpy(truth != VOID)
    return Pixels(full[:, labelled].half(), torch.from_numpy(truth)[labelled].long(), engine.spec.classes)


def choose_bias(pixels: Pixels) -> NDArray[np.float32]:
    """Return the bias that maximizes the mean IoU, one class at a time."""
    bias = np.zeros(len(pixels.classes), np.float32)
    for _ in range(ROUNDS):
        for label in range(len(bias)):
            mious = [compute_metrics(matrix, pixels.classes)["miou"] for matrix in pixels.by_step(bias, label)]
            bias[label] = STEPS[int(np.argmax(mious))]
    return bias


def main(
    recipe: Annotated[Path, typer.Argument(help="The training recipe, with held_back.")],
    network: Annotated[Path | None, typer.Option(help="The network; default: runs/RECIPE/NETWORK.onnx.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Find the best bias of each class, and its effect."""
    config = read_recipe(recipe)
    if config.held_back is None:
        raise ConfigError(f"{recipe}: held_back: is required")
    facts: dict[str, Any] = {"machine": describe_machine()}
    opened = open_network(network or Path("runs", recipe.stem, f"{config.network}.onnx"))
    classes = opened.classes
    _, pairs = split_held_back(
        read_pairs(config.data, config.split, classes=len(classes)), config.held_back, where=str(recipe)
    )
    with open_engine(opened, precision="f32", threads=2) as engine:
        images = [segment_pixels(image, truth, engine) for image, truth in zip(pairs.images, pairs.labels, strict=True)]
    middle = len(images) // 2
    parts = [Pixels.concatenate(half) for half in (images[:middle], images[middle:])]
    everything = Pixels.concatenate(parts)
    bias, none = choose_bias(everything), np.zeros(len(classes), np.float32)
    before, after = (compute_metrics(everything.confusion(one), classes) for one in (none, bias))
    table = figures_table(f"{len(pairs)} images held back", "class", "bias", "IoU % before", "after")
    for name, value in zip(classes.names, bias.tolist(), strict=True):
        ious = (format_percent(metrics["class_iou"][name]) for metrics in (before, after))
        table.add_row(name, f"{value:g}", *ious)
    table.add_row("mean", "", format_percent(before["miou"]), format_percent(after["miou"]))
    halves = figures_table("chosen on one half", "measured on the", "mean IoU % before", "after")
    for here, there, name in ((0, 1, "second"), (1, 0, "first")):
        mious = [
            compute_metrics(parts[there].confusion(one), classes)["miou"] for one in (none, choose_bias(parts[here]))
        ]
        halves.add_row(name, *map(format_percent, mious))
    facts |= {"bias": dict(zip(classes.names, bias.tolist(), strict=True)), "before": before, "after": after}
    print_results(facts, [table, halves], json_file)


if __name__ == "__main__":
    run_command(main)
