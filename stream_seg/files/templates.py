"""Paths of outputs with placeholders: the stream of a frame, the time of the start, the number of a part."""

from __future__ import annotations

import itertools
import os
import re
import time
from pathlib import Path

from stream_seg.errors import OutputError
from stream_seg.redact import quote_value

STREAM, TIME, PART = "{stream}", "{time}", "{part}"
"""Placeholders in the path of an output: the name of a frame's stream, the UTC time at which the file or folder was
begun, and the number of a part of a recording."""


def fill_stream(template: Path, stream: str) -> Path:
    """Replace `{stream}` in a path. Raises OutputError for a stream whose name is no file name."""
    if STREAM in str(template) and not re.fullmatch(r"\w[\w .-]*", stream):
        raise OutputError(
            f"cannot write {template}: the stream name {quote_value(stream)} is no file name; allowed are letters, "
            "digits, '_', and after the first character ' ', '.', '-'"
        )
    return Path(str(template).replace(STREAM, stream))


def complete_template(path: Path, *, live: bool, overwrite: bool, rotates: bool = False) -> Path:
    """Return the path with the placeholder that an output adds before the suffix, so that it replaces nothing.

    A live output gets `{time}` unless `overwrite` is set. An output that begins new files as it goes (`rotates`) gets
    `{part}`. A path that has one of the two is returned unchanged.
    """
    if names_new_files(path):
        return path
    placeholder = TIME if live and not overwrite else PART if rotates else ""
    return path.with_name(f"{path.stem}-{placeholder}{path.suffix}") if placeholder else path


def names_new_files(path: Path) -> bool:
    """Return whether a path has `{time}` or `{part}`: every run writes a new file or folder then."""
    return TIME in str(path) or PART in str(path)


def fill_time(template: Path, time_s: float) -> Path:
    """Replace `{time}` in a path by a time in seconds since 1970: 20261130T183000Z, in UTC."""
    return Path(str(template).replace(TIME, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time_s))))


def compile_template(template: Path) -> re.Pattern[str]:
    """Return the pattern of the names of the files that a path, whose `{stream}` is filled, can have produced.

    Those of killed runs, under a partial name, are included. The group "part" is the number of a part.
    """
    stem = re.escape(template.stem).replace(re.escape(TIME), r"\d{8}T\d{6}Z")
    stem = stem.replace(re.escape(PART), r"(?P<part>\d{4,})", 1).replace(re.escape(PART), "(?P=part)")
    return re.compile(rf"{stem}(-\d+)?(\.partial(-\d+)?)?{re.escape(template.suffix)}")


def free_path(path: Path) -> Path:
    """Return the first of NAME.SUFFIX, NAME-2.SUFFIX, NAME-3.SUFFIX ... that does not exist, nor its partial file."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not _is_taken(candidate))


def _is_taken(path: Path) -> bool:
    return os.path.lexists(path) or os.path.lexists(path.with_name(f"{path.stem}.partial{path.suffix}"))
