"""A folder of label maps with one writer, and without maps of an older run among those of this one."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path

import cv2

from stream_seg.errors import OutputError
from stream_seg.files.writing import map_write_errors, replace_file, try_lock
from stream_seg.types import Classes, Labels

LOG = logging.getLogger(__name__)

LABEL_MAP = re.compile(r"(\d{6}|[1-9]\d{6,})\.png|\.(\d{6}|[1-9]\d{6,})\.partial\.png")
"""Names of label maps, also of one that a killed run left unfinished."""
CLASS_LIST = "classes.json"


class LabelFolder:
    """A locked folder that receives the label maps of a stream. A context manager.

    Entering it creates the folder, and raises OutputError if the folder is locked or holds label maps. With `overwrite`
    they are removed with the first map of this run; maps without a classes.json are images of a user, and refused. A
    folder in which nothing was written is removed again.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path, self._overwrite = path, overwrite
        self._created: list[Path] = []
        self._descriptor = -1
        self._begun = False
        self.closed = False
        """True after an error or the end."""

    def __enter__(self) -> LabelFolder:
        with map_write_errors(self.path):
            self._created = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._lock()
                self._check_content()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, seq: int, labels: Labels, classes: Classes) -> None:
        """Write the label map of frame `seq`, uint8 (H, W). Raises OutputError."""
        self.require_present()
        if not self._begun:
            self._begin(classes)
        _, png = cv2.imencode(".png", labels)  # OpenCV's defaults, level 1 and run lengths, are fast for flat areas
        replace_file(self.path / f"{seq:06}.png", png.tobytes(), overwrite=self._overwrite)

    def sync(self) -> None:
        """Look for the folder. Callable from any thread. Raises OutputError once if it is gone."""
        if not self.closed:
            self.require_present()

    def require_present(self) -> None:
        """Raise OutputError if the folder was deleted, or another one has its name."""
        try:
            present = os.path.samestat(os.fstat(self._descriptor), self.path.stat())  # the path may be a link
        except OSError:
            present = False
        if not present:
            self.closed = True
            raise OutputError(f"cannot write {self.path}: the folder was deleted or moved during the run")

    def _begin(self, classes: Classes) -> None:
        """Remove the label maps of an older run, and write the list of classes."""
        with map_write_errors(self.path):
            for name in self._label_maps():
                (self.path / name).unlink(missing_ok=True)
        entries = zip(range(len(classes)), classes.names, classes.colours, strict=True)
        lines = [json.dumps({"label": label, "name": name, "colour": colour}) for label, name, colour in entries]
        replace_file(self.path / CLASS_LIST, ("[\n" + ",\n".join(lines) + "\n]\n").encode())
        self._begun = True

    def _lock(self) -> None:
        """Lock the folder until it is closed. Raises OutputError if another output has it."""
        try:
            if not try_lock(self._descriptor, required=True):
                self._created = []  # by the other one
                raise OutputError(f"cannot write {self.path}: another run or output writes to this folder")
        except OSError as error:  # NFS locks no folders
            LOG.warning("%s: cannot be locked (%s): a second run into it would not be noticed", self.path, error)
        self.require_present()  # the holder of the lock may have removed it

    def _check_content(self) -> None:
        maps, has_classes = self._label_maps(), is_class_list(self.path / CLASS_LIST)
        if maps and self._overwrite and not has_classes:
            raise OutputError(
                f"cannot write {self.path}: {maps[0]} may be an image, since no {CLASS_LIST} lists its classes; choose"
                " another folder"
            )
        if not self._overwrite and (maps or os.path.lexists(self.path / CLASS_LIST)):
            raise OutputError(
                f"cannot write {self.path}: the folder holds label maps; choose another one, or replace them with"
                " --overwrite"
            )

    def _label_maps(self) -> list[str]:
        """Return the names of the label maps in the folder."""
        with os.scandir(self.path) as entries:
            return sorted(
                e.name for e in entries if LABEL_MAP.fullmatch(e.name) and not e.is_dir(follow_symlinks=False)
            )

    def _close(self) -> None:
        self.closed = True
        for folder in self._created:  # from within, while the lock is held
            with suppress(OSError):  # it has content
                folder.rmdir()
        os.close(self._descriptor)


def is_class_list(path: Path) -> bool:
    """Return whether a file lists classes as `masks` does."""
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and {"label", "name", "colour"} <= entry.keys() for entry in entries
    )
