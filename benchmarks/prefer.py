"""What would have to be added to a network's scores (`prefer`) for the largest mean IoU, by pictures that it never saw.

    stream-seg train configs/train/road_camvid_held.yaml
    python benchmarks/prefer.py configs/train/road_camvid_held.yaml

The likeliest class is not what makes the mean IoU largest: a class of IoU J is best said from a probability of J / (1 +
J) on, as it is half of F1 for F1 (Lipton, Elkan, Naryanaswamy, ECML 2014, section 4). Whether training left anything to
be had there is looked for on what the recipe's `held_back` kept back, and on one half of it to be judged on the other.
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
from surroundings import command, figures, finish, machine

from stream_seg.backends.engine import Engine
from stream_seg.datasets.labelled import read_pairs
from stream_seg.datasets.scoring import figures as scored
from stream_seg.datasets.scoring import percent
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import open_network
from stream_seg.stages.segment import segmented
from stream_seg.training.recipe import read_recipe
from stream_seg.training.setup import divided
from stream_seg.types import VOID, Classes, Image, Labels

STEPS = np.arange(-1, 3.01, 0.25, dtype=np.float32)
ROUNDS = 3
"""Over all classes, one after the other."""


@dataclass(frozen=True)
class Pixels:
    """Scores, float16 (C, n), and truth, int64 (n,), of the labelled pixels of some pictures."""

    scores: torch.Tensor
    truth: torch.Tensor
    classes: Classes

    @classmethod
    def joined(cls, parts: Sequence[Pixels]) -> Pixels:
        """Those of all parts."""
        truth = torch.cat([part.truth for part in parts])
        return cls(torch.cat([part.scores for part in parts], 1), truth, parts[0].classes)

    def confusion(self, given: NDArray[np.float32]) -> NDArray[np.int64]:
        """The confusion matrix with `given` added to the scores."""
        said = (self.scores + torch.from_numpy(given)[:, None].half()).argmax(0)
        count = len(self.classes) + 1
        return torch.bincount(self.truth * count + said, minlength=(count - 1) * count).view(-1, count).numpy()

    def by_step(self, given: NDArray[np.float32], label: int) -> list[NDArray[np.int64]]:
        """The same, for each of STEPS as what `label` is given."""
        scores = self.scores + torch.from_numpy(given)[:, None].half()
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


def seen(image: Image, truth: Labels, engine: Engine) -> Pixels:
    """What an engine says of one picture, at the size of its labels."""
    said = segmented(image, engine).scores
    if said is None:
        raise NetworkError("the network says labels, not scores: none of its classes can be preferred")
    low = torch.from_numpy(np.array(said, np.float32))[None]
    full = torch.nn.functional.interpolate(low, truth.shape, mode="bilinear", align_corners=False)[0]
    counted = torch.from_numpy(truth != VOID)
    return Pixels(full[:, counted].half(), torch.from_numpy(truth)[counted].long(), engine.spec.classes)


def chosen(pixels: Pixels) -> NDArray[np.float32]:
    """What makes the mean IoU largest, a class at a time."""
    given = np.zeros(len(pixels.classes), np.float32)
    for _ in range(ROUNDS):
        for label in range(len(given)):
            mious = [scored(matrix, pixels.classes)["miou"] for matrix in pixels.by_step(given, label)]
            given[label] = STEPS[int(np.argmax(mious))]
    return given


def main(
    recipe: Annotated[Path, typer.Argument(help="What it was trained by, with held_back.")],
    network: Annotated[Path | None, typer.Option(help="The network; absent: runs/RECIPE/NETWORK.onnx.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """What each class would be given, and what that is worth."""
    said = read_recipe(recipe)
    if said.held_back is None:
        raise ConfigError(f"{recipe}: held_back: is required: the pictures to choose on")
    facts: dict[str, Any] = {"machine": machine()}
    opened = open_network(network or Path("runs", recipe.stem, f"{said.network}.onnx"))
    classes = opened.classes
    _, held = divided(read_pairs(said.data, said.split, classes=len(classes)), said.held_back, where=str(recipe))
    with open_engine(opened, precision="f32", threads=2) as engine:
        pictures = [seen(image, truth, engine) for image, truth in zip(held.images, held.labels, strict=True)]
    middle = len(pictures) // 2
    parts = [Pixels.joined(half) for half in (pictures[:middle], pictures[middle:])]
    everything = Pixels.joined(parts)
    given, none = chosen(everything), np.zeros(len(classes), np.float32)
    before, after = (scored(everything.confusion(one), classes) for one in (none, given))
    table = figures(f"{len(held)} pictures held back", "class", "given", "IoU % before", "after")
    for name, value in zip(classes.names, given.tolist(), strict=True):
        table.add_row(name, f"{value:g}", percent(before["class_iou"][name]), percent(after["class_iou"][name]))
    table.add_row("mean", "", percent(before["miou"]), percent(after["miou"]))
    judged = figures("chosen on one half", "judged on the", "mean IoU % before", "after")
    for here, there, name in ((0, 1, "second"), (1, 0, "first")):
        on = [scored(parts[there].confusion(one), classes)["miou"] for one in (none, chosen(parts[here]))]
        judged.add_row(name, *map(percent, on))
    facts |= {"given": dict(zip(classes.names, given.tolist(), strict=True)), "before": before, "after": after}
    finish(facts, [table, judged], json_file)


if __name__ == "__main__":
    command(main)
