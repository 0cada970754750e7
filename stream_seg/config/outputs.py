"""The files that a graph writes: none of them may be a file that it reads, or replace one that exists."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from stream_seg.config.config import Config, Node
from stream_seg.errors import OutputError
from stream_seg.files.templates import compile_template, complete_template, fill_stream
from stream_seg.files.writing import refuse_existing, require_writable, resolve_path
from stream_seg.sources.images import list_input_files
from stream_seg.stages.base import Stage

PARTIAL = re.compile(r"\.partial(-\d+)?$")
"""The end of the stem of a partial file, in which a recording grows."""


def refuse_overwriting(config: Config, *, report_file: Path | None = None, inputs: Sequence[Path] = ()) -> None:
    """Raise OutputError if an output, the report or the traces would overwrite an input or each other.

    `inputs` are files that are read besides those of the graph, such as the graph file. This does not depend on
    `overwrite`.
    """
    written = output_paths(config)
    if config.traces is not None and config.traces.file is not None:
        written.append(("the traces", config.traces.file))
    if report_file is not None:
        require_writable(report_file)
        written.append(("the report", report_file))
    writers: dict[Path, str] = {}
    for name, path in written:
        first = writers.setdefault(_without_partial(path), name)
        if first != name:
            raise OutputError(f"{path}: {first} and {name} would both write it; give each its own path")
    sources = [node.stage.location() for node in config.sources if hasattr(node.stage, "location")]
    read = [*inputs, *_files_of_keys(config), *(file for source in sources for file in list_input_files(source))]
    for _, path in written:
        if any(is_same_file(path, file) for file in read):
            raise OutputError(f"{path}: is the input as well; choose another name for the output")
    pruned = [path for node in config.outputs if getattr(node.stage, "keep_gb", None) for path in _paths(config, node)]
    for path, file in itertools.product(pruned, read):
        if _can_prune(path, file):
            raise OutputError(f"{path}: keep_gb would remove the input {file}; choose another name for the output")


def output_paths(config: Config) -> list[tuple[str, Path]]:
    """Return (stage name, path) of everything that the outputs write, one path for each stream that reaches them."""
    return [(node.name, path) for node in config.outputs for path in _paths(config, node)]


def paths_of(stage: Stage, streams: Iterable[str]) -> list[Path]:
    """Return the paths that an output writes for these streams; none for an output that writes no file.

    Raises OutputError for a stream whose name is no file name.
    """
    template = str(getattr(stage, "path", ""))
    return list(dict.fromkeys(fill_stream(Path(template), stream) for stream in streams)) if template else []


def check_files(files: Iterable[Path], *, overwrite: bool, inputs: Iterable[str | Path | None] = ()) -> None:
    """Raise OutputError if a file to be written is one of `inputs`, or exists and `overwrite` is not set."""
    read = [Path(source) for source in inputs if source is not None]
    for file in files:
        if any(is_same_file(file, source) for source in read):
            raise OutputError(f"{file}: is an input as well; choose another name")
        refuse_existing(file, overwrite=overwrite)


def is_same_file(path: Path, other: Path) -> bool:
    """Return whether both paths exist, as far as this user may see, and are the same file."""
    target = resolve_path(path)  # an output may be written as x/../NAME without a folder x
    return os.path.exists(target) and os.path.exists(other) and os.path.samefile(target, other)


def _paths(config: Config, node: Node) -> list[Path]:
    return paths_of(node.stage, config.streams(node.name))


def _can_prune(path: Path, file: Path) -> bool:
    """Return whether an output at `path` that removes old files of its own takes a file for one of them."""
    target, file = resolve_path(path), resolve_path(file)
    templates = {complete_template(target, live=live, overwrite=False, rotates=True) for live in (False, True)}
    return target.parent == file.parent and any(compile_template(each).fullmatch(file.name) for each in templates)


def _without_partial(path: Path) -> Path:
    """Return the path behind all links, as the recording whose partial file it would be: o.mp4 of o.partial-2.mp4."""
    target = resolve_path(path)
    if not target.name:
        raise OutputError(f"cannot write {path}: it exists and is not a file")
    return target.with_name(PARTIAL.sub("", target.stem) + target.suffix)


def _files_of_keys(config: Config) -> Iterator[Path]:
    """Yield the files that keys of stages name, such as networks and passwords; without the paths of outputs."""
    for node in config.nodes:
        keys: dict[str, Any] = {key.name: getattr(node.stage, key.name, None) for key in fields(node.stage)}  # type: ignore[arg-type]
        if node.role == "output":
            keys.pop("path", None)
        for value in keys.values():
            for text in value.values() if isinstance(value, Mapping) else (value,):
                if isinstance(text, str | Path) and os.path.isfile(text):
                    yield Path(text)
