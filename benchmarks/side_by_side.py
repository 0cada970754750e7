"""Train a few networks briefly by the same recipe, and draw their labels of one image side by side.

    python benchmarks/side_by_side.py train segnet      one network; after a kill it resumes
    python benchmarks/side_by_side.py draw              all that are trained, into docs/images/side_by_side.png

The image is synthetic (synth://road), so that it may be published; --input chooses another. With --masks only the label
maps are drawn, so that those of CamVid images may be published too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
import yaml
from surroundings import run_program

from stream_seg.cli.timing import read_frames
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, StreamSegError
from stream_seg.files.writing import replace_file
from stream_seg.network.network import open_network
from stream_seg.ops.labels import resize_labels
from stream_seg.schema.yaml import read_yaml
from stream_seg.stages.segment import segment_image
from stream_seg.types import Classes, Image, Labels
from stream_seg.zoo import BUILDERS

EXAMPLES = ("road", "lraspp_mobilenet", "deeplabv3_mobilenet", "unet_resnet34", "unet_padded", "deeplab_v1", "segnet")
"""Two cores take minutes for each of the first four, and up to half an hour for the others."""
RECIPE = Path(__file__).with_suffix(".yaml")
DRIVE = "synth://road?size=960x720&seed=7&truth=1"
RUNS = Path("runs/side_by_side")
TILE, CAPTION = (360, 480), 32
"""Height and width of an image, and the height of its caption."""
FACE, THICK = cv2.FONT_HERSHEY_SIMPLEX, 1

app = typer.Typer(help="Networks trained briefly by the same recipe, side by side.", add_completion=False)


@app.command()
def train(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help=f"For example {', '.join(EXAMPLES)}.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs, one per network.")] = RUNS,
    data: Annotated[Path | None, typer.Option(help="Folder of data, instead of the recipe's.")] = None,
    recipe: Annotated[Path, typer.Option(help="The recipe for all networks.")] = RECIPE,
) -> None:
    """Train a network, or resume its training, and score it on val."""
    if network not in BUILDERS:
        raise ConfigError(f"unknown network {network!r}; known: {', '.join(BUILDERS)}")
    keys = {**read_yaml(recipe), "network": network}
    folder = out / network
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / "recipe.yaml"
    replace_file(own, yaml.safe_dump(keys, sort_keys=False).encode())
    data, trained, figures = data or Path(keys["data"]), folder / f"{network}.onnx", folder / "val.json"
    figures.unlink(missing_ok=True)  # it may be of older weights
    _stream_seg("train", str(own), "--out", str(folder), "--data", str(data), "--resume")
    _stream_seg(*("eval", "--network", str(trained), "--data", str(data), "--precision", "f32", "--json", str(figures)))
    miou = json.loads(figures.read_bytes())["miou"]
    print("for benchmarks/results/camvid.yaml:")
    print(f'{network}: {{miou: {100 * miou:.1f}, how: "{recipe.name}, {keys["steps"]} steps"}}')


def _stream_seg(*arguments: str) -> None:
    """Run `stream-seg` in a new process that shares our terminal. Raises StreamSegError if it fails."""
    if subprocess.run([sys.executable, "-m", "stream_seg", *arguments]).returncode:
        raise StreamSegError(f"stream-seg {arguments[0]} failed")


@app.command()
def draw(
    path: Annotated[Path, typer.Option("--write", metavar="FILE.png", help="The image to write.")] = Path(
        "docs/images/side_by_side.png"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the runs, one per network.")] = RUNS,
    source: Annotated[str, typer.Option("--input", help="Source whose first frame is labelled.")] = DRIVE,
    masks: Annotated[bool, typer.Option("--masks", help="Draw the label maps only, not the image.")] = False,
    columns: Annotated[int, typer.Option(min=1, max=8)] = 3,
) -> None:
    """Draw the labels of every trained network for one image."""
    trained = [name for name in BUILDERS if (out / name / f"{name}.json").is_file()]
    if not trained:
        raise ConfigError(f"{out}: no network is trained there; python benchmarks/side_by_side.py train {EXAMPLES[0]}")
    frame = read_frames(source, 1)[0]
    tiles = [] if masks else [make_tile(frame.image, "the image")]
    if frame.truth is not None:
        truth = draw_labels(frame.image, frame.truth.labels, frame.truth.classes, masks=masks)
        tiles.append(make_tile(truth, "the truth"))
    for name in trained:
        with open_engine(open_network(out / name / f"{name}.onnx"), precision="f32") as engine:
            semantic = segment_image(frame.image, engine)
        labelled = draw_labels(frame.image, semantic.labels, semantic.classes, masks=masks)
        tiles.append(make_tile(labelled, name, _score(out / name / "val.json")))
    sheet = arrange(tiles, columns=columns)
    sheet = np.concatenate([sheet, draw_legend(semantic.classes, width=sheet.shape[1])])
    replace_file(path, cv2.imencode(".png", sheet)[1].tobytes())
    print(f"{path}: {', '.join(trained)}")


def _score(figures: Path) -> str:
    return f"CamVid val {100 * json.loads(figures.read_bytes())['miou']:.1f}" if figures.is_file() else ""


def draw_labels(image: Image, labels: Labels, classes: Classes, *, masks: bool) -> Image:
    """Draw the colours of the labels over the image; with `masks` the colours only."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes)] = np.array(classes.colours, np.uint8)[:, ::-1]
    overlay = colours[resize_labels(labels, image.shape[:2])]
    return overlay if masks else np.asarray(cv2.addWeighted(image, 0.35, overlay, 0.65, 0), np.uint8)


def make_tile(image: Image, name: str, figure: str = "") -> Image:
    """Return the image at the size `TILE` above a caption: its name on the left, a figure on the right."""
    height, width = TILE
    small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    strip = np.full((CAPTION, width, 3), 255, np.uint8)
    cv2.putText(strip, name, (6, 22), FACE, 0.6, (0, 0, 0), THICK, cv2.LINE_AA)
    (wide, _), _ = cv2.getTextSize(figure, FACE, 0.6, THICK)
    cv2.putText(strip, figure, (width - 6 - wide, 22), FACE, 0.6, (90, 90, 90), THICK, cv2.LINE_AA)
    return np.concatenate([small, strip])


def draw_legend(classes: Classes, *, width: int) -> Image:
    """Return the names and colours of the classes, wrapped to `width` pixels."""
    lines, x = [np.full((CAPTION, width, 3), 255, np.uint8)], 6
    for name, (red, green, blue) in zip(classes.names, classes.colours, strict=True):
        (wide, _), _ = cv2.getTextSize(name, FACE, 0.5, THICK)
        if x + 22 + wide > width and x > 6:
            lines.append(np.full_like(lines[0], 255))
            x = 6
        cv2.rectangle(lines[-1], (x, 9), (x + 14, 23), (blue, green, red), cv2.FILLED)
        cv2.putText(lines[-1], name, (x + 20, 21), FACE, 0.5, (0, 0, 0), THICK, cv2.LINE_AA)
        x += 36 + wide
    return np.concatenate(lines)


def arrange(tiles: Sequence[Image], *, columns: int) -> Image:
    """Arrange tiles in rows; the last row is filled with white."""
    empty = np.full_like(tiles[0], 255)
    rows = [list(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    rows[-1] += [empty] * (columns - len(rows[-1])) if len(rows) > 1 else []
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


if __name__ == "__main__":
    run_program(app)
