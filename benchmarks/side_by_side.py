"""A handful of networks of the zoo, trained briefly by one recipe, and what each says of one picture, side by side.

    python benchmarks/side_by_side.py train segnet      one command per network; killed, it goes on where it was
    python benchmarks/side_by_side.py draw              all that are trained so far, into docs/images/side_by_side.png

The picture is drawn (synth://road), so that it may be published. With --input it is another, for oneself; with --masks
only the classes are shown, and nothing of the picture, so that what networks say of CamVid's may be published too.
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
from surroundings import finished

from stream_seg.cli.bench import first_frames
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, StreamSegError
from stream_seg.files import replace_file
from stream_seg.network.network import open_network
from stream_seg.ops.labels import resized_labels
from stream_seg.schema.yaml import read_yaml
from stream_seg.stages.segment import segmented
from stream_seg.types import Classes, Image, Labels
from stream_seg.zoo import BUILDERS

HANDFUL = ("road", "lraspp_mobilenet", "deeplabv3_mobilenet", "unet_resnet34", "unet_padded", "deeplab_v1", "segnet")
"""Two cores take minutes for each of the first four, and a quarter to half of an hour for the others."""
RECIPE = Path(__file__).with_suffix(".yaml")
DRIVE = "synth://road?size=960x720&seed=7&truth=1"
RUNS = Path("runs/side_by_side")
TILE, CAPTION = (360, 480), 32
"""Height and width of a picture, and the height of what stands below it."""
FACE, THICK = cv2.FONT_HERSHEY_SIMPLEX, 1

app = typer.Typer(help="Networks of the zoo, trained briefly by one recipe, side by side.", add_completion=False)


@app.command()
def train(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help=f"For example {', '.join(HANDFUL)}.")],
    out: Annotated[Path, typer.Option(help="Where every network gets a folder.")] = RUNS,
    data: Annotated[Path | None, typer.Option(help="Another folder of data than the recipe's.")] = None,
    recipe: Annotated[Path, typer.Option(help="What they have in common.")] = RECIPE,
) -> None:
    """Train one of them, or go on where it was, and score it on val."""
    if network not in BUILDERS:
        raise ConfigError(f"unknown network {network!r}; known: {', '.join(BUILDERS)}")
    said = {**read_yaml(recipe), "network": network}
    folder = out / network
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / "recipe.yaml"
    replace_file(own, yaml.safe_dump(said, sort_keys=False).encode())
    place, trained, figures = data or Path(said["data"]), folder / f"{network}.onnx", folder / "val.json"
    figures.unlink(missing_ok=True)  # of other weights, if this is killed half-way
    _stream_seg("train", str(own), "--out", str(folder), "--data", str(place), "--resume")
    _stream_seg(
        *("eval", "--network", str(trained), "--data", str(place), "--precision", "f32", "--json", str(figures))
    )
    miou = json.loads(figures.read_bytes())["miou"]
    print("for benchmarks/results/camvid.yaml:")
    print(f'{network}: {{miou: {100 * miou:.1f}, how: "{recipe.name}, {said["steps"]} steps"}}')


def _stream_seg(*arguments: str) -> None:
    """The command line in a process of its own, with its progress where ours is. Raises StreamSegError."""
    if subprocess.run([sys.executable, "-m", "stream_seg.cli.app", *arguments]).returncode:
        raise StreamSegError(f"stream-seg {arguments[0]} failed")


@app.command()
def draw(
    picture: Annotated[Path, typer.Option("--write", metavar="FILE.png", help="What is drawn.")] = Path(
        "docs/images/side_by_side.png"
    ),
    out: Annotated[Path, typer.Option(help="Where every network has its folder.")] = RUNS,
    source: Annotated[str, typer.Option("--input", help="Its first frame is shown.")] = DRIVE,
    masks: Annotated[bool, typer.Option("--masks", help="The classes alone, nothing of the picture.")] = False,
    columns: Annotated[int, typer.Option(min=1, max=8)] = 3,
) -> None:
    """Draw what every network that is trained says of one picture."""
    trained = [name for name in BUILDERS if (out / name / f"{name}.json").is_file()]
    if not trained:
        raise ConfigError(f"{out}: no network is trained there; python benchmarks/side_by_side.py train {HANDFUL[0]}")
    frame = first_frames(source, 1)[0]
    tiles = [] if masks else [tile(frame.image, "the picture")]
    if frame.truth is not None:
        tiles.append(tile(painted(frame.image, frame.truth.labels, frame.truth.classes, masks=masks), "the truth"))
    for name in trained:
        with open_engine(open_network(out / name / f"{name}.onnx"), precision="f32") as engine:
            semantic = segmented(frame.image, engine)
        said = painted(frame.image, semantic.labels, semantic.classes, masks=masks)
        tiles.append(tile(said, name, _score(out / name / "val.json")))
    sheet = grid(tiles, columns=columns)
    sheet = np.concatenate([sheet, legend(semantic.classes, width=sheet.shape[1])])
    replace_file(picture, cv2.imencode(".png", sheet)[1].tobytes())
    print(f"{picture}: {', '.join(trained)}")


def _score(figures: Path) -> str:
    return f"CamVid val {100 * json.loads(figures.read_bytes())['miou']:.1f}" if figures.is_file() else ""


def painted(image: Image, labels: Labels, classes: Classes, *, masks: bool) -> Image:
    """The picture under the colours of its classes; with `masks` the colours alone."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes)] = np.array(classes.colours, np.uint8)[:, ::-1]
    over = colours[resized_labels(labels, image.shape[:2])]
    return over if masks else np.asarray(cv2.addWeighted(image, 0.35, over, 0.65, 0), np.uint8)


def tile(image: Image, name: str, figure: str = "") -> Image:
    """A picture of the size of `TILE` with its name, and a figure to the right, below it."""
    height, width = TILE
    small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    strip = np.full((CAPTION, width, 3), 255, np.uint8)
    cv2.putText(strip, name, (6, 22), FACE, 0.6, (0, 0, 0), THICK, cv2.LINE_AA)
    (wide, _), _ = cv2.getTextSize(figure, FACE, 0.6, THICK)
    cv2.putText(strip, figure, (width - 6 - wide, 22), FACE, 0.6, (90, 90, 90), THICK, cv2.LINE_AA)
    return np.concatenate([small, strip])


def legend(classes: Classes, *, width: int) -> Image:
    """The names of the classes beside their colours, in as many lines as `width` pixels ask for."""
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


def grid(tiles: Sequence[Image], *, columns: int) -> Image:
    """Tiles row by row, white where the last row has none."""
    empty = np.full_like(tiles[0], 255)
    rows = [list(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    rows[-1] += [empty] * (columns - len(rows[-1])) if len(rows) > 1 else []
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


if __name__ == "__main__":
    finished(app)
