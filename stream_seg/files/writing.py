"""Files that are written at once: checks of their paths before the work, and atomic replacement.

A file is written as `.NAME.partial.SUFFIX`, locked, in the folder of its final name. A rename gives it that name when
it is complete; after an error it is removed. Its folder is created if the parent of the folder exists: a mistyped path
must not scatter folders. Files that grow during a run are those of `stages.growing_file`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av

from stream_seg.errors import ConfigError, OutputError, StreamSegError
from stream_seg.files.templates import PART, STREAM, TIME, names_new_files
from stream_seg.redact import quote_value, redact_secrets

REASONS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EFBIG: "the file is larger than this system allows",
}


def expand_home(path: Path) -> Path:
    """Return the path with ~ and ~USER expanded. Raises ConfigError for an unknown user."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(f"{quote_value(str(path))}: unknown user or home folder") from None


def path_validator(*suffixes: str) -> Callable[[Path], Path]:
    """Return a pydantic validator of a path that has one of these suffixes, and placeholders in its file name only."""

    def check(path: Path) -> Path:
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{quote_value(str(path))} does not end in {' or '.join(suffixes)}")
        for placeholder in (STREAM, TIME, PART):
            if placeholder in str(path.parent):
                raise ValueError(f"{quote_value(str(path))}: {placeholder} is allowed in the file name only")
        return expand_home(path)

    return check


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if a file or a folder with content would be overwritten: a check before the work.

    A path with `{time}` or `{part}` overwrites nothing. Hidden files in a folder do not count. Devices and pipes
    (/dev/null) are written to, not replaced.
    """
    if overwrite or names_new_files(path):
        return
    target = resolve_path(path)
    with map_write_errors(path):
        if target.is_file() or (target.is_dir() and any(not entry.name.startswith(".") for entry in target.iterdir())):
            fault = "the folder is not empty" if target.is_dir() else "the file exists"
            raise OutputError(
                f"cannot write {path}: {fault}; choose another name, or overwrite it with --overwrite "
                "(graph file: overwrite: true; Python: overwrite=True)"
            )


def require_folder(folder: Path, path: Path) -> None:
    """Raise OutputError unless files can be created in this folder, or the folder in its parent; names `path`."""
    shown, where = redact_secrets(str(path)), redact_secrets(str(folder))
    if not folder.is_dir():
        if os.path.lexists(folder) or not folder.parent.is_dir():
            raise OutputError(f"cannot write {shown}: no such folder: {where}; create it first")
        folder = folder.parent
        where = redact_secrets(str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {shown}: the folder {where} is not writable")


def make_folder(folder: Path, path: Path) -> None:
    """Create the folder of an output if its parent exists. Raises OutputError as `require_folder` does."""
    require_folder(folder, path)
    with map_write_errors(path):
        folder.mkdir(exist_ok=True)


def require_writable(path: Path) -> None:
    """Raise OutputError if `replace_file` could not write: a check before the work, not after it."""
    with map_write_errors(path):
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it exists and is not a file")
        if not _is_device(path):
            require_folder(resolve_path(path).parent, path)
            partial_path(path).exists()  # raises OSError for a name that is too long once ".partial" is in it


@contextmanager
def map_write_errors(path: Path) -> Iterator[None]:
    """Map errors of the system and of FFmpeg in the body to an OutputError that names the path."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        reason = REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}") from error


def replace_file(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a small file atomically: a reader sees the old content or the new, never a part.

    A device or a pipe is written to. Raises OutputError, also for a pipe that nobody reads.
    """
    if _is_device(path):
        with map_write_errors(path), open(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), "wb") as device:
            os.set_blocking(device.fileno(), True)
            device.write(content)
        return
    with atomic_file(path, overwrite=overwrite) as partial, map_write_errors(path):
        partial.write_bytes(content)


def _is_device(path: Path) -> bool:
    """Return whether a path is a device, a pipe or a socket: something that a new file must not replace."""
    with map_write_errors(path):
        return path.exists() and not path.is_file() and not path.is_dir()


def publish(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Give a complete file its name. Without `overwrite`, raises OutputError if something has that name by now."""
    if overwrite:
        os.replace(partial, target)
        return
    try:
        os.link(partial, target, follow_symlinks=False)
    except OSError:  # the name is taken, or the file system has no hard links
        if os.path.lexists(target):
            raise OutputError(f"cannot write {target}: it exists by now; the new content is in {partial}") from None
        os.rename(partial, target)
    else:
        partial.unlink()


def partial_path(path: Path) -> Path:
    """Return the path at which an output is written before it gets its name. Raises OutputError for an invalid path."""
    target = resolve_path(path)
    if not target.name:
        raise OutputError(f"cannot write {path}: it exists and is not a file")
    return target.with_name(f".{target.stem}.partial{target.suffix}")


def resolve_path(path: Path) -> Path:
    """Return the path behind all links."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise OutputError(f"cannot write {quote_value(str(path))}: {error}") from error


@contextmanager
def atomic_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield the empty partial file of an output for the body to write; see the module docstring.

    Without `overwrite`, raises OutputError if a file has the name at the end, and leaves the new content in the partial
    file.
    """
    target, partial = resolve_path(path), partial_path(path)
    with map_write_errors(path):
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {path}: it exists and is not a file")
        make_folder(target.parent, path)
        lock = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "wb")
    with lock:
        _lock_partial(lock.fileno(), partial, path)
        try:
            yield partial
        except BaseException:
            with suppress(OSError):  # the error of the body counts
                partial.unlink()
            raise
        with map_write_errors(path):
            publish(partial, target, overwrite=overwrite)


def _lock_partial(descriptor: int, partial: Path, path: Path) -> None:
    """Lock and empty the partial file, which a killed run may have left. Raises OutputError if another has it."""
    with map_write_errors(path):
        if not (try_lock(descriptor) and has_name(descriptor, partial)):
            raise OutputError(f"cannot write {path}: another output is writing it; give each its own path")
        os.ftruncate(descriptor, 0)


def try_lock(descriptor: int, *, required: bool = False) -> bool:
    """Lock an open file or folder until it is closed. Return False if another open file holds the lock.

    On a file system without locks, raises OSError if the lock is `required`, else returns True.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        if required:
            raise
    return True


def has_name(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has its name, not as a link. Raises OSError if the device does not answer."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def is_file(path: Path, *, error: type[StreamSegError]) -> bool:
    """Return `path.is_file()`. Raises `error` if that is unknown: a folder without permission, a name too long."""
    try:
        return path.is_file()
    except OSError as failure:
        raise error(f"{path}: {failure.strerror}") from failure
