"""Batches by number: what step s sees depends on recipe, data and s alone, so that a resumed run sees it too."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Full, Queue
from threading import Event, Thread

import numpy as np
import torch
from torch import Tensor

from stream_seg.datasets.labelled import Pairs, synth_labels
from stream_seg.synth import render
from stream_seg.training.augment import augmented, pasted, repainted
from stream_seg.training.recipe import Recipe
from stream_seg.types import Classes, Image, Labels

TOWN_STEPS, TOWN_FRAMES = 100, 3000
"""Building a town takes a second, a picture of it 0.1 s: a town serves this many steps with frames from so many."""
Batch = tuple[Tensor, Tensor]


def batches(pairs: Pairs, recipe: Recipe, classes: Classes, *, first: int) -> Iterator[Batch]:
    """uint8 images (N, H, W, 3) and int64 labels (N, H, W) of every step from `first` on, made in another thread.

    What fails there is raised here.
    """
    ready: Queue[Batch | BaseException] = Queue(maxsize=4)
    ended = Event()

    def give(made: Batch | BaseException) -> None:
        while not ended.is_set():
            try:
                ready.put(made, timeout=0.1)
            except Full:
                continue
            return

    def produce() -> None:
        try:
            for step in range(first, recipe.steps):
                give(batch(pairs, recipe, classes, step=step))
                if ended.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised by the one who waits
            give(error)

    Thread(target=produce, daemon=True).start()
    try:
        for _ in range(first, recipe.steps):
            made = ready.get()
            if isinstance(made, BaseException):
                raise made
            yield made
    finally:
        ended.set()


def batch(pairs: Pairs, recipe: Recipe, classes: Classes, *, step: int) -> Batch:
    """The batch of one step."""
    draw = np.random.default_rng([recipe.seed, step])
    chosen = draw.integers(len(pairs), size=recipe.batch)
    crops = []
    for index in chosen:
        picture, labels = pairs[int(index)]
        if recipe.synth and draw.random() < recipe.synth:
            picture, labels = drawn(picture.shape[:2], recipe, classes, step=step, draw=draw)
        crops.append(
            augmented(
                picture,
                labels,
                draw,
                crop=recipe.crop,
                scale=recipe.scale,
                wider=proportions(recipe.size) / proportions(labels.shape),
                sky=recipe.sky,
                light=recipe.light,
                rotate=recipe.rotate,
            )
        )
    if recipe.paste:
        put = [classes.names.index(name) for name in recipe.paste.classes]
        crops = [
            pasted(crop, crops[place - 1], put, draw) if draw.random() < recipe.paste.share else crop
            for place, crop in enumerate(crops)
        ]
    if recipe.repaint:
        share, labels = recipe.repaint.share, [classes.names.index(name) for name in recipe.repaint.classes]
        crops = [(repainted(*crop, labels, draw), crop[1]) if draw.random() < share else crop for crop in crops]
    images, maps = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
    return images, maps.long()


def proportions(size: tuple[int, ...]) -> float:
    """Width over height of `size` = (height, width)."""
    return size[1] / size[0]


def drawn(
    size: tuple[int, ...], recipe: Recipe, classes: Classes, *, step: int, draw: np.random.Generator
) -> tuple[Image, Labels]:
    """A drawn picture of `size` = (height, width), and its labels in `classes`, which share names with CamVid's."""
    town = int(np.random.default_rng([recipe.seed, step // TOWN_STEPS, 2]).integers(2**32))
    drawing = render(town, int(draw.integers(TOWN_FRAMES)), size[1], size[0])
    return drawing.image, synth_labels(classes)[drawing.labels()]
