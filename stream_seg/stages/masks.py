"""`masks`: label maps into a folder, one PNG per frame."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import cv2
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError, OutputError
from stream_seg.files import STREAM, at_home, replace_file, require_folder, semantic_of, stream_path, writing
from stream_seg.ops.labels import resized_labels
from stream_seg.stages.base import STRICT, Frames
from stream_seg.types import Classes, Labels

LOG = logging.getLogger(__name__)


@dataclass(config=STRICT)
class Masks:
    """Write one PNG label map per frame into a folder.

    000042.png is the frame with seq 42: 8-bit grey at the picture's size, a pixel's value is its class, 255 is void.
    `classes.json` beside them lists the classes by label: {"label", "name", "colour": [red, green, blue]}. The folder
    is made when the first frame comes; files of the same names are replaced, all others are left alone. A card
    in the place of a picture (`Frame.signal`) has none.
    """

    path: Annotated[
        Path,
        AfterValidator(at_home),
        Field(description="the folder; {stream} in it stands for the stream's name"),
    ]

    def __call__(self, frames: Frames) -> Frames:
        _require_place(self.path)
        folders: dict[Path, str] = {}
        for frame in frames:
            if frame.signal is not None:
                yield frame
                continue
            semantic = semantic_of(frame, "masks")
            folder = stream_path(self.path, frame.stream)
            if folder not in folders:
                with writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                _list_classes(folder, described(semantic.classes))
            if folders.setdefault(folder, frame.stream) != frame.stream:
                raise ConfigError(
                    f"masks: the streams {folders[folder]} and {frame.stream} cannot share {self.path}; "
                    f"one folder for each is path: '{self.path / STREAM}'"
                )
            labels = resized_labels(semantic.labels, frame.image.shape[:2])
            replace_file(folder / f"{frame.seq:06}.png", encoded(labels))
            yield frame


def _list_classes(folder: Path, listed: bytes) -> None:
    place = folder / "classes.json"
    with writing(place):
        if place.exists() and place.read_bytes() != listed and any(folder.glob("*.png")):
            LOG.warning("%s: has label maps of other classes; %s now lists this run's", folder, place.name)
    replace_file(place, listed)


def encoded(labels: Labels) -> bytes:
    """A label map as a PNG: OpenCV's own choice, level 1 and run lengths, is the fast one for flat areas."""
    _, png = cv2.imencode(".png", labels)
    return png.tobytes()


def described(classes: Classes) -> bytes:
    """The classes as JSON, one a line."""
    entries = zip(range(len(classes)), classes.names, classes.colours, strict=True)
    lines = [json.dumps({"label": label, "name": name, "colour": colour}) for label, name, colour in entries]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def _require_place(path: Path) -> None:
    """Raise OutputError unless the folder is there to be written to, or its parent is, to make it in."""
    fixed = path
    while STREAM in str(fixed):
        fixed = fixed.parent
    with writing(path):
        if fixed.exists() and not fixed.is_dir():
            raise OutputError(f"cannot write {path}: {fixed} exists and is not a folder")
        require_folder(fixed if fixed.is_dir() else fixed.parent, path)
