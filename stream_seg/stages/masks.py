"""`masks`: write label maps to a folder, one PNG per frame."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Annotated

import cv2
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg import files
from stream_seg.errors import ConfigError, OutputError
from stream_seg.ops.labels import resize_labels
from stream_seg.stages.base import STRICT, Frames, Traits
from stream_seg.types import Classes

LOG = logging.getLogger(__name__)


@dataclass(config=STRICT)
class Masks:
    """Write one PNG label map per frame to a folder.

    000042.png belongs to the frame with seq 42: 8-bit grey at the size of the image; the value of a pixel is its class,
    255 is void. `classes.json` beside them lists the classes by label: {"label", "name", "colour": [red, green, blue]}.
    The folder is created with the first frame; files of the same names are replaced, other files stay. Placeholder
    frames (`Frame.signal`) are skipped.
    """

    traits = Traits(role="output", argument="a folder for label maps (masks/)")

    path: Annotated[
        Path,
        AfterValidator(files.expand_home),
        Field(description="the folder; {stream} in it stands for the name of the stream"),
    ]

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one that is no folder."""
        return {"path": text} if "://" not in text and (text.endswith("/") or os.path.isdir(text)) else None

    def __call__(self, frames: Frames) -> Frames:
        _require_writable(self.path)
        folders: dict[Path, str] = {}
        for frame in frames:
            if frame.signal is not None:
                yield frame
                continue
            semantic = files.require_semantic(frame, "masks")
            folder = files.fill_stream(self.path, frame.stream)
            if folder not in folders:
                with files.map_write_errors(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                _write_classes(folder, semantic.classes)
            if folders.setdefault(folder, frame.stream) != frame.stream:
                raise ConfigError(
                    f"masks: the streams {folders[folder]} and {frame.stream} cannot share {self.path}; "
                    f"for one folder each use path: '{self.path / files.STREAM}'"
                )
            labels = resize_labels(semantic.labels, frame.image.shape[:2])
            _, png = cv2.imencode(".png", labels)  # OpenCV's defaults, level 1 and run lengths, are fast for flat areas
            files.replace_file(folder / f"{frame.seq:06}.png", png.tobytes())
            yield frame


def _write_classes(folder: Path, classes: Classes) -> None:
    entries = zip(range(len(classes)), classes.names, classes.colours, strict=True)
    lines = [json.dumps({"label": label, "name": name, "colour": colour}) for label, name, colour in entries]
    path, content = folder / "classes.json", ("[\n" + ",\n".join(lines) + "\n]\n").encode()
    with files.map_write_errors(path):
        if path.exists() and path.read_bytes() != content and any(folder.glob("*.png")):
            LOG.warning("%s: contains label maps of other classes; %s lists those of this run", folder, path.name)
    files.replace_file(path, content)


def _require_writable(path: Path) -> None:
    """Raise OutputError unless the folder can be written to, or created in its parent."""
    folder = path
    while files.STREAM in str(folder):
        folder = folder.parent
    with files.map_write_errors(path):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"cannot write {path}: {folder} exists and is not a folder")
        files.require_folder(folder if folder.is_dir() else folder.parent, path)
