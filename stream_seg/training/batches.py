"""Training batches. A batch depends on recipe, data and step number alone, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from stream_seg.datasets.labelled import Pairs, synth_label_table
from stream_seg.synth import render
from stream_seg.training.augment import augment, paste_classes, repaint_classes
from stream_seg.training.recipe import Recipe
from stream_seg.types import Classes, Image, Labels

TOWN_STEPS, TOWN_FRAMES = 100, 3000
"""Steps that share a synthetic town, which takes a second to build, and the range of its frames (0.1 s each)."""
AHEAD = 4
"""Batches that are made ahead."""
Batch = tuple[Tensor, Tensor]
"""Images uint8 (N, H, W, 3) and labels int64 (N, H, W)."""


def iterate_batches(pairs: Pairs, recipe: Recipe, classes: Classes, *, first: int) -> Iterator[Batch]:
    """Yield the batch of every step from `first` on, made ahead by another thread, whose errors are raised here."""
    pool, batches = ThreadPoolExecutor(1), deque[Future[Batch]]()
    try:
        for step in range(first, recipe.steps):
            batches.append(pool.submit(make_batch, pairs, recipe, classes, step=step))
            if len(batches) > AHEAD:
                yield batches.popleft().result()
        while batches:
            yield batches.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def make_batch(pairs: Pairs, recipe: Recipe, classes: Classes, *, step: int) -> Batch:
    """Make the batch of one step."""
    rng = np.random.default_rng([recipe.seed, step])
    crops = []
    for index in rng.integers(len(pairs), size=recipe.batch):
        image, labels = pairs[int(index)]
        if recipe.synth and rng.random() < recipe.synth:
            image, labels = draw_synthetic(image.shape[:2], recipe, classes, step=step, rng=rng)
        crops.append(augment(image, labels, recipe, rng))
    if recipe.paste:
        share, pasted = recipe.paste.share, [classes.names.index(name) for name in recipe.paste.classes]
        crops = [
            paste_classes(crop, crops[place - 1], pasted, rng) if rng.random() < share else crop
            for place, crop in enumerate(crops)
        ]
    if recipe.repaint:
        share, painted = recipe.repaint.share, [classes.names.index(name) for name in recipe.repaint.classes]
        crops = [(repaint_classes(*crop, painted, rng), crop[1]) if rng.random() < share else crop for crop in crops]
    images, maps = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*crops, strict=True))
    return images, maps.long()


def draw_synthetic(
    size: tuple[int, ...], recipe: Recipe, classes: Classes, *, step: int, rng: np.random.Generator
) -> tuple[Image, Labels]:
    """Draw an image of synth://road of `size` = (height, width), with labels of the classes that CamVid has too."""
    town = int(np.random.default_rng([recipe.seed, step // TOWN_STEPS, 2]).integers(2**32))
    drawing = render(town, int(rng.integers(TOWN_FRAMES)), size[1], size[0])
    return drawing.image, synth_label_table(classes)[drawing.labels()]
