"""Parts of a recording: when the next one begins, its name, and which old ones are removed."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

from pydantic import Field

from stream_seg.errors import ConfigError
from stream_seg.files.templates import (
    PART,
    TIME,
    compile_template,
    complete_template,
    fill_time,
    free_path,
    names_new_files,
)
from stream_seg.files.writing import map_write_errors, resolve_path
from stream_seg.stages.base import Context

LOG = logging.getLogger(__name__)

SegmentS: TypeAlias = Annotated[
    float | None, Field(ge=1, description="begin a new file after so many seconds of a stream; none: one file")
]
SegmentMb: TypeAlias = Annotated[
    float | None, Field(ge=1, description="begin a new file at so many megabytes (10^6 bytes); none: one file")
]
KeepGb: TypeAlias = Annotated[
    float | None,
    Field(
        gt=0, description="remove the oldest files of this path beyond so many gigabytes (10^9 bytes); none: keep all"
    ),
]


@dataclass(frozen=True)
class Rotation:
    """The keys of an output that records in parts; None is no limit."""

    segment_s: float | None = None
    segment_mb: float | None = None
    keep_gb: float | None = None

    @property
    def in_parts(self) -> bool:
        """Return whether the output begins new files as it goes."""
        return self.segment_s is not None or self.segment_mb is not None

    def bind(self, path: Path, context: Context) -> Path:
        """Return the path that an output records to in a graph: with a time or a number where it would replace files.

        Raises ConfigError for `keep_gb` where every run writes the same file.
        """
        template = complete_template(
            path, live=not context.recorded, overwrite=context.overwrite, rotates=self.in_parts
        )
        if self.keep_gb is not None and not names_new_files(template):
            raise ConfigError(
                f"{context.name}: keep_gb: {path} is one file; set segment_s or segment_mb, or put {TIME} in its name"
            )
        return template

    def is_full(self, seconds: float, size: int) -> bool:
        """Return whether a part that covers `seconds` of a stream and has `size` bytes is complete."""
        return (self.segment_s is not None and seconds >= self.segment_s) or (
            self.segment_mb is not None and size >= self.segment_mb * 1e6
        )


class FileNames:
    """Paths of the files of a template, whose `{stream}` is filled, one after the other."""

    def __init__(self, template: Path) -> None:
        self.template = template
        self._number = 0

    def next(self) -> Path:
        """Return the path of the next file.

        `{time}` becomes the present time. `{part}` becomes the number after the highest in the folder, of files that
        were finished or left by a killed run: 0001 and so on. A name that is taken gets a number: NAME-2.SUFFIX.
        """
        if not names_new_files(self.template):
            return self.template
        path = fill_time(self.template, time.time())
        if PART in path.name:
            numbers = [int(match["part"]) for match, _ in _list_files(self.template)]
            self._number = max([self._number, *numbers]) + 1
            path = path.with_name(path.name.replace(PART, f"{self._number:04}"))
        return free_path(path)


def prune(templates: Iterable[Path], keep_bytes: float) -> None:
    """Remove the oldest files of the templates until all of them, with the growing ones, have `keep_bytes` or less.

    Only regular files that a template can have produced are removed, also those that a killed run left under a partial
    name; never one that is being written, nor the newest of a template: a recording that is larger than `keep_bytes`
    must not vanish at its end. Each one is logged. A file that cannot be removed is logged and kept.
    """
    by_template = [[file for _, file in _list_files(template)] for template in templates]
    newest = {max(files).path for files in by_template if files}
    files = {file.path: file for files in by_template for file in files}
    total = sum(file.size for file in files.values())
    for file in sorted(files.values()):
        if total <= keep_bytes:
            return
        if file.path in newest:
            continue
        try:
            if _is_locked(file.path):
                continue
            file.path.unlink()
        except FileNotFoundError:  # it got its name, or was removed, since it was listed
            continue
        except OSError as error:
            LOG.warning("%s: cannot be removed: %s", file.path, error.strerror)
            continue
        LOG.warning("%s: removed (%.1f MB), since keep_gb is %g", file.path, file.size / 1e6, keep_bytes / 1e9)
        total -= file.size


class _File(NamedTuple):
    """A file of a template. Files sort by age."""

    modified_ns: int
    path: Path
    size: int


def _list_files(template: Path) -> Iterator[tuple[re.Match[str], _File]]:
    """Yield the regular files that a template, whose `{stream}` is filled, can have produced."""
    target = resolve_path(template)
    pattern = compile_template(target)
    with map_write_errors(template), os.scandir(target.parent) as entries:
        for entry in entries:
            if match := pattern.fullmatch(entry.name):
                with suppress(FileNotFoundError):  # it was renamed or removed meanwhile
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield match, _File(status.st_mtime_ns, target.parent / entry.name, status.st_size)


def _is_locked(path: Path) -> bool:
    """Return whether a file is being written. Raises OSError where that cannot be known."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
