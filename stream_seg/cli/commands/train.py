"""`stream-seg train` and `stream-seg export`: networks for the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream_seg.cli.options import Overwrite, Prefer, Size


def train(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="Network, data and schedule (YAML)."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for checkpoints and the network; default: runs/RECIPE."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of labelled images, instead of the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from FOLDER/last.pt, if it exists.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a network on labelled images, and export it for the pipeline, with a model card.

    Recipes to start from: {recipes}
    """
    from stream_seg.cli.train import train_command

    train_command(recipe, out=out, data=data, resume=resume, overwrite=overwrite)


def export(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A network of `stream-seg networks`.")],
    weights: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|NAME",
            help="A .pt, .pth or .safetensors file, a name of torchvision's, or road, which is shipped. Several times:"
            " the mean of the weights, for runs that started from the same ones.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.onnx",
            help="The network; FILE.json beside it is its side-car. FILE.safetensors: the weights, to train from.",
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="camvid, cityscapes, voc, names with commas, or their number; if the weights state none.",
        ),
    ] = None,
    input_name: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="NAME",
            help="imagenet, unit, centred, bytes or caffe; if neither weights nor side-car state the input.",
        ),
    ] = None,
    size: Size = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of labelled images: also export int8, and check the input on them."),
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Split of DIR; default: train.")] = None,
    compare: Annotated[
        str | None, typer.Option("--held", metavar="SPLIT", help="Split of DIR to compare int8 with float32 on.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Reject weights that do not match the images of DIR.")
    ] = True,
    prefer: Prefer = None,
    overwrite: Overwrite = False,
) -> None:
    """Export published weights or a checkpoint: a network for the pipeline, or weights to train from."""
    from stream_seg.cli.export import ExportOptions, export_command
    from stream_seg.network.sidecar import parse_prefer

    options = ExportOptions(
        network,
        tuple(weights),
        out,
        classes=classes,
        input_name=input_name,
        size=size,
        data=data,
        split=split,
        compare=compare,
        check=check,
        prefer=parse_prefer(prefer or ()),
        overwrite=overwrite,
    )
    export_command(options)
