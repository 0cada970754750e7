"""Train, export and quantise a network: python -m stream_seg.training RECIPE --out FOLDER [--resume]."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_seg.dataset import read_pairs
from stream_seg.errors import ConfigError, StreamSegError
from stream_seg.ops.palette import CAMVID
from stream_seg.sidecar import validated
from stream_seg.strict_yaml import read_yaml
from stream_seg.training.recipe import Recipe
from stream_seg.zoo import BUILDERS

if TYPE_CHECKING:
    from torch import nn


def main(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML of configs/train/.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the exported network.")],
    data: Annotated[Path | None, typer.Option(help="Another folder of data than the recipe's.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from OUT/last.pt.")] = False,
) -> None:
    """Train a network by a recipe, then export it: OUT/NAME.onnx, NAME_int8.onnx and NAME.json."""
    import torch

    from stream_seg.training.export import export
    from stream_seg.training.loop import train

    recipe = validated(Recipe, read_yaml(recipe_file), where=str(recipe_file))
    pairs = read_pairs(data or recipe.data, recipe.split, classes=len(CAMVID))
    torch.manual_seed(recipe.seed)
    net = built(recipe.network, len(CAMVID), where=str(recipe_file))
    train(recipe, net, pairs, classes=len(CAMVID), out=out, resume=resume)
    net.load_state_dict(torch.load(out / "last.pt", weights_only=True)["average"])
    export(recipe, net, CAMVID, calibration=pairs.images[::6], out=out)


def built(network: str, classes: int, *, where: str) -> nn.Module:
    """A network of the zoo with new weights. Raises ConfigError for a name that is none."""
    if network not in BUILDERS:
        raise ConfigError(f"{where}: network: unknown {network!r}; known: {', '.join(BUILDERS)}")
    builder = BUILDERS[network]
    module, _, name = builder.builder.partition(":")
    net: nn.Module = getattr(importlib.import_module(module), name)(classes, **builder.keys)
    return net


if __name__ == "__main__":
    try:
        typer.run(main)
    except StreamSegError as error:
        print(f"stream_seg.training: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
