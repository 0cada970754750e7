"""A small data set for tests: red, green and blue fields, classified by their colour alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from stream_seg.datasets.labelled import Pairs

NAMES = ["red", "green", "blue"]
BGR = np.array([[40, 50, 200], [60, 170, 60], [210, 90, 40]], np.float32)


def coloured_fields(count: int = 8, *, size: tuple[int, int] = (64, 96), seed: int = 0) -> Pairs:
    """Return images of 4 x 6 fields of random classes, mostly red, with a little noise, and void on the left."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(count):
        fields = rng.choice(3, (4, 6), p=[0.6, 0.25, 0.15]).astype(np.uint8)
        truth = np.kron(fields, np.ones((size[0] // 4, size[1] // 6), np.uint8))
        image = np.clip(BGR[truth] + rng.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8)
        truth[:, :2] = 255
        images.append(image)
        labels.append(truth)
    return Pairs(images, labels)


def write_split(folder: Path, pairs: Pairs, split: str) -> None:
    """Write a split as the folders SPLIT and SPLITannot."""
    for place, arrays in ((split, pairs.images), (f"{split}annot", pairs.labels)):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number, array in enumerate(arrays):
            assert cv2.imwrite(str(folder / place / f"{number:03}.png"), array)


def recipe_file(folder: Path, **keys: Any) -> Path:
    """Write a recipe of the road network for the fields in `folder`, with `keys`; None omits a key. Return its path."""
    recipe = {
        "network": "road",
        "data": str(folder),
        "classes": NAMES,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.3, 0.3, 0.3],
        "size": [64, 96],
        "crop": [32, 48],
        "batch": 2,
        "steps": 4,
        "warm_up": 2,
        "learning_rate": 0.005,
        **keys,
    }
    path = folder / "fields.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
    return path
