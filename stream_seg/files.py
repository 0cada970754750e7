"""The care that every file output shares: nothing half-written ever stands under a final name.

A file grows as `.NAME.partial.SUFFIX` in the folder of its final name, and gets that name, in one atomic rename that
replaces an older file, when the input ends or the stage is closed early (Ctrl-C). After an error, or when nothing was
written to it, it is removed. A folder that is missing is refused, not made: a mistyped path must not scatter folders.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import av

from stream_seg.errors import ConfigError, OutputError, StreamSegError
from stream_seg.frame import Frame, Semantic
from stream_seg.redact import quoted, without_secrets

STREAM = "{stream}"
"""Stands in a path for the name of a frame's stream."""

REASONS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EFBIG: "the file is larger than this system allows",
}


def at_home(path: Path) -> Path:
    """The path with ~ and ~USER filled in. Raises ConfigError for a user that there is none of."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(f"{quoted(str(path))}: there is no such user, or no home is known") from None


def file_path(*suffixes: str) -> Callable[[Path], Path]:
    """A pydantic validator: a path with one of these suffixes, `{stream}` in its last part only."""

    def check(path: Path) -> Path:
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{quoted(str(path))} does not end in {' or '.join(suffixes)}")
        if STREAM in str(path.parent):
            raise ValueError(f"{quoted(str(path))}: {STREAM} may stand in the file's name only")
        return at_home(path)

    return check


def stream_path(template: Path, stream: str) -> Path:
    """The path with `{stream}` filled in. Raises OutputError for a stream whose name cannot stand in a file name."""
    if STREAM in str(template) and not re.fullmatch(r"\w[\w .-]*", stream):
        raise OutputError(
            f"cannot write {template}: the stream name {quoted(stream)} is no file name; letters, digits, '_', and, "
            "after the first, ' ', '.', '-' are allowed"
        )
    return Path(str(template).replace(STREAM, stream))


def semantic_of(frame: Frame, stage: str) -> Semantic:
    """What the network said of a frame. Raises ConfigError where no network came before this stage."""
    if frame.semantic is None:
        raise ConfigError(f"{stage}: the frames carry no classes; put a segment stage before it")
    return frame.semantic


def require_folder(folder: Path, path: Path) -> None:
    """Raise OutputError unless files can be made in this folder. `path` is what the message names."""
    shown, where = without_secrets(str(path)), without_secrets(str(folder))
    if not folder.is_dir():
        raise OutputError(f"cannot write {shown}: there is no folder {where}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {shown}: the folder {where} is not writable")


def refuse_unwritable(path: Path) -> None:
    """Raise OutputError where `replace_file` could not write: said before the work, not after it."""
    with writing(path):
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it exists and is not a file")
        require_folder(_target(path).parent, path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Map the errors of the system and of FFmpeg to an OutputError that names the path."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        reason = REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file in one step: a reader sees the old content or the new, never a part."""
    with final_file(path) as partial, writing(path):
        partial.write_bytes(content)


def partial_path(path: Path) -> Path:
    """Where an output grows before it has its name. Raises OutputError for what is no path."""
    target = _target(path)
    return target.with_name(f".{target.stem}.partial{target.suffix}")


def _target(path: Path) -> Path:
    """What a path means; links are followed as far as they lead."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise OutputError(f"cannot write {quoted(str(path))}: {error}") from error


@contextmanager
def final_file(path: Path) -> Iterator[Path]:
    """The empty partial file of an output, to be written to in the body; see the head of this module for its fate."""
    target, partial = _target(path), partial_path(path)
    with writing(path):
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {path}: it exists and is not a file")
        require_folder(target.parent, path)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    finished = False
    try:
        _claim(descriptor, partial, path)
        try:
            yield partial
            finished = True
        except GeneratorExit:
            finished = True
            raise
        finally:
            with writing(path):
                if finished and partial.stat().st_size:
                    os.replace(partial, target)
                else:
                    partial.unlink()
    finally:
        os.close(descriptor)


def _claim(descriptor: int, partial: Path, path: Path) -> None:
    """Lock and empty the partial file, which a killed run may have left; refuse one that another writer holds."""
    with writing(path):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(descriptor), partial.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise OutputError(f"cannot write {path}: another output is writing it; give each its own path")
        os.ftruncate(descriptor, 0)


@contextmanager
def final_files(template: Path) -> Iterator[Callable[[str], Path]]:
    """Partial files by stream: one for all, or with `{stream}` in the file's name one for each."""
    with ExitStack() as files:
        partials: dict[Path, Path] = {}

        def partial_of(stream: str) -> Path:
            path = stream_path(template, stream)
            if path not in partials:
                partials[path] = files.enter_context(final_file(path))
            return partials[path]

        if STREAM in template.name:
            require_folder(template.parent, template)
        else:
            partial_of("")  # an output that cannot be written is refused before the first frame
        yield partial_of


def is_file(path: Path, *, error: type[StreamSegError]) -> bool:
    """`path.is_file()`. Raises `error` where that cannot be told: a folder that may not be entered, a name too long."""
    try:
        return path.is_file()
    except OSError as refused:
        raise error(f"{path}: {refused.strerror}") from refused
