"""Putting engines into the cache and taking them out: one builder at a time, nothing half-written or left over."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from stream_seg.backends.cache import entries, trusted
from stream_seg.backends.entry import Entry, Key
from stream_seg.errors import OutputError
from stream_seg.output import writing

SUFFIXES = (".plan", ".onnx", ".partial")


@contextmanager
def building(folder: Path, key: Key, *, wait_s: float = 1800) -> Iterator[None]:
    """Hold the right to build `key`, the folder made where it is missing; whoever comes second waits.

    What a killed build left is removed. Raises NetworkError as `cache.trusted`, OutputError where
    nothing can be written or the other builder takes longer than `wait_s`.
    """
    from filelock import FileLock, Timeout

    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    trusted(folder)
    lock = folder / f".{key.digest[:16]}.lock"
    try:
        with FileLock(lock, timeout=wait_s, mode=0o600):
            for left in folder.glob(f".{key.digest[:16]}.*.partial"):
                left.unlink()
            yield
    except Timeout as error:
        raise OutputError(
            f"engine cache {folder}: another process is building this engine for {wait_s:.0f} s"
        ) from error
    except OSError as error:  # of the lock; what the body raises is mapped there
        raise OutputError(f"cannot write {lock}: {error.strerror or error}") from error


def store(folder: Path, entry: Entry, engine: bytes) -> None:
    """Put an engine under its key, in place of an older one. To be called inside `building`. Raises OutputError."""
    old = folder / f"{entry.name}.json"
    _write(folder / entry.file, engine, key=entry.key)
    try:
        _write(old, _json(entry), key=entry.key)
    except BaseException:  # Ctrl-C too: an engine that nothing describes only fills the disk
        (folder / entry.file).unlink(missing_ok=True)
        raise
    for file in _files(folder, entry.name):
        if file.name not in (entry.file, old.name):
            file.unlink()


def remove(folder: Path, name: str) -> None:
    """Take an entry and its engine away, the JSON first. Raises OutputError."""
    with writing(folder / name):
        (folder / f"{name}.json").unlink(missing_ok=True)
        for file in _files(folder, name):
            file.unlink()


def swept(folder: Path, *, older_than_s: float = 3600.0) -> int:
    """Remove what no entry names: engines without a JSON and the parts of killed builds; how many there were.

    Only what is older than `older_than_s`: a younger one may be a build under way.
    """
    if not trusted(folder):
        return 0
    named = {entry.file for _, entry in entries(folder) if isinstance(entry, Entry)}
    loose = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name not in named]
    old = [path for path in loose if time.time() - path.lstat().st_mtime > older_than_s]
    with writing(folder):
        for path in old:
            path.unlink(missing_ok=True)
    return len(old)


def _write(path: Path, what: bytes, *, key: Key) -> None:
    """One step, on disk when it returns; nothing is left of a write that failed."""
    with (
        writing(path),
        NamedTemporaryFile(dir=path.parent, prefix=f".{key.digest[:16]}.", suffix=".partial", delete=False) as partial,
    ):
        try:
            partial.write(what)
            partial.flush()
            os.fsync(partial.fileno())
            os.replace(partial.name, path)
        except BaseException:
            os.unlink(partial.name)
            raise


def _json(entry: Entry) -> bytes:
    return entry.model_dump_json(indent=2, exclude={"seal"} if entry.seal is None else None).encode() + b"\n"


def _files(folder: Path, name: str) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(f"{name}-")]
