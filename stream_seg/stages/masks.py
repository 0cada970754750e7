"""`masks`: write label maps to a folder, one PNG per frame."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError, OutputError
from stream_seg.files.templates import STREAM, complete_template, fill_stream, fill_time, free_path
from stream_seg.files.writing import expand_home, map_write_errors, require_folder
from stream_seg.ops.labels import resize_labels
from stream_seg.stages.base import STRICT, Context, Frames, Traits, require_semantic
from stream_seg.stages.keeper import Keeper
from stream_seg.stages.label_folder import LabelFolder


@dataclass(config=STRICT)
class Masks:
    """Write one PNG label map per frame to a folder.

    000042.png belongs to the frame with seq 42: 8-bit grey at the size of the image; the value of a pixel is its class,
    255 is void. `classes.json` beside them lists the classes by label: {"label", "name", "colour": [red, green, blue]}.
    A folder that is not empty is refused; with `overwrite` the label maps of an older run are removed with the first
    frame, and other files stay. The name of a live folder gets the time of its start. One run at a time writes to a
    folder. Placeholder frames (`Frame.signal`) are skipped.
    """

    traits = Traits(role="output", argument="a folder for label maps (masks/)")

    path: Annotated[
        Path,
        AfterValidator(expand_home),
        Field(description="the folder; {stream} in it stands for the name of the stream, {time} for the start"),
    ]

    def __post_init__(self) -> None:
        self._context = Context()

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one that is no folder."""
        return {"path": text} if "://" not in text and (text.endswith("/") or os.path.isdir(text)) else None

    def bind(self, context: Context) -> Masks:
        """Return the stage with the context of a graph; a live one writes a folder with the time in its name."""
        live = not context.recorded
        bound = replace(self, path=complete_template(self.path, live=live, overwrite=context.overwrite))
        bound._context = context
        return bound

    def __call__(self, frames: Frames) -> Frames:
        _require_writable(self.path)
        shared, writer = STREAM not in str(self.path), ""
        known = self._context.streams() if self._context.streams else ()
        with ExitStack() as open_folders, Keeper(self._context.fail, name=self._context.name) as keeper:
            folders: dict[str, LabelFolder] = {}

            def folder_of(stream: str) -> LabelFolder:
                key = "" if shared else stream
                if key not in folders:
                    folders[key] = open_folders.enter_context(self._make_folder(key))
                    keeper.add(folders[key])
                return folders[key]

            for stream in [""] if shared else known:
                folder_of(stream)  # a folder that cannot be written is an error before the first frame
            for frame in frames:
                folder = folder_of(frame.stream)
                if frame.signal is not None:
                    folder.require_present()
                    yield frame
                    continue
                semantic = require_semantic(frame, "masks")
                writer = writer or frame.stream
                if shared and writer != frame.stream:
                    raise ConfigError(
                        f"masks: the streams {writer} and {frame.stream} cannot share {self.path}; "
                        f"for one folder each use path: '{self.path / STREAM}'"
                    )
                folder.write(frame.seq, resize_labels(semantic.labels, frame.size), semantic.classes)
                yield frame

    def _make_folder(self, stream: str) -> LabelFolder:
        """Return the folder of a stream; one with a time in its name is new, and its name is announced."""
        template = fill_stream(self.path, stream)
        path = fill_time(template, time.time())
        if path != template:
            path = free_path(path)  # a run may have begun in the same second
            self._context.announce(f"label maps in {path}/")
        return LabelFolder(path, overwrite=self._context.overwrite)


def _require_writable(path: Path) -> None:
    """Raise OutputError unless the folder can be written to, or created in its parent."""
    folder = path
    while STREAM in str(folder):
        folder = folder.parent
    with map_write_errors(path):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"cannot write {path}: {folder} exists and is not a folder")
        require_folder(folder, path)
