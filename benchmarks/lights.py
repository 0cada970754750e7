"""Measure the mIoU of networks on a labelled split with images changed as by other cameras and light.

    python benchmarks/lights.py --data data/camvid --network road --network other.onnx

The changes are fixed, so that networks can be compared; the first row is for unchanged images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

from stream_seg.datasets.labelled import read_pairs
from stream_seg.engines.open import open_engine
from stream_seg.evaluation.images import score_images
from stream_seg.network.network import open_network
from stream_seg.types import Image


def main(
    data: Annotated[Path, typer.Option(help="A folder with SPLIT/ and SPLITannot/.")],
    split: Annotated[str, typer.Option(help="Name of the split.")] = "val",
    network: Annotated[list[str] | None, typer.Option(help="Name or file of a network; repeatable.")] = None,
    precision: Annotated[str, typer.Option(help="auto, f32, bf16 or int8.")] = "f32",
    json_file: JsonFile = None,
) -> None:
    """Measure the mean IoU by change and network."""
    names = network or ["road"]
    facts: dict[str, Any] = {"machine": describe_machine(), "split": split, "miou": {}}
    for name in names:
        with open_engine(open_network(name), precision=precision, threads=2) as engine:
            pairs = read_pairs(data, split, classes=len(engine.spec.classes))
            facts["miou"][name] = {
                name_of_change: score_images(
                    engine, ((change(image), truth) for image, truth in zip(pairs.images, pairs.labels, strict=True))
                )["miou"]
                for name_of_change, change in CHANGES.items()
            }
    table = figures_table("mean IoU %, images changed", "", *names)
    for change in CHANGES:
        table.add_row(change, *(f"{100 * facts['miou'][name][change]:.1f}" for name in names))
    table.add_row("mean", *(f"{100 * mean(facts['miou'][name].values()):.1f}" for name in names))
    print_results(facts, [table], json_file)


def scale_channels(image: Image, blue: float, green: float, red: float) -> Image:
    """Change the white balance."""
    return np.asarray(np.clip(np.rint(image * np.array([blue, green, red])), 0, 255), np.uint8)


def apply_gamma(image: Image, gamma: float, gain: float = 1.0) -> Image:
    """Change the exposure."""
    ramp = gain * 255 * (np.arange(256) / 255) ** gamma
    return np.asarray(cv2.LUT(image, np.rint(np.clip(ramp, 0, 255)).astype(np.uint8)), np.uint8)


def add_haze(image: Image) -> Image:
    """Reduce the contrast to less than half."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=0.45, beta=0.55 * 160), np.uint8)


def add_grain(image: Image) -> Image:
    """Add the noise of a small sensor at night, the same in every image."""
    grain = np.random.default_rng(0).normal(0, 10, image.shape)
    return np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)


CHANGES: Mapping[str, Callable[[Image], Image]] = {
    "unchanged": lambda image: image,
    "warm (red 1.25, blue 0.8)": lambda image: scale_channels(image, 0.8, 1.0, 1.25),
    "cold (blue 1.25, red 0.8)": lambda image: scale_channels(image, 1.25, 1.0, 0.8),
    "green (1.2)": lambda image: scale_channels(image, 1.0, 1.2, 1.0),
    "dusk (gamma 1.8, times 0.7)": lambda image: apply_gamma(image, 1.8, 0.7),
    "bright (gamma 0.55)": lambda image: apply_gamma(image, 0.55),
    "haze (0.45 of the contrast)": add_haze,
    "out of focus (sigma 1.2)": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.2), np.uint8),
    "noise (sigma 10)": add_grain,
}


if __name__ == "__main__":
    run_command(main)
