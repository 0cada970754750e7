"""Write to the engine cache: store, remove and clean up, safe against crashes and concurrent builds.

The JSON of an engine is written last and atomically, so an engine is there completely or not at all. A lock per key
lets one process build while others wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from stream_seg.engines.cache import check_folder, read_entries
from stream_seg.engines.cache_entry import Entry, Key
from stream_seg.errors import OutputError
from stream_seg.files.writing import map_write_errors

SUFFIXES = (".plan", ".onnx", ".partial")
"""Files that `clean_up` may remove."""


@contextmanager
def lock_key(folder: Path, key: Key, *, wait_s: float = 1800) -> Iterator[None]:
    """Hold the lock to build `key`; create the folder, and remove the partial files of a killed build.

    Raises NetworkError as `cache.check_folder`, OutputError where nothing can be written or another process holds the
    lock for more than `wait_s`.
    """
    from filelock import FileLock, Timeout

    with map_write_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder(folder)
    path = folder / f".{key.digest[:16]}.lock"
    lock = FileLock(path, timeout=wait_s, mode=0o600)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"engine cache {folder}: another process has been building this engine for {wait_s:.0f} s"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with map_write_errors(folder):
            for partial in folder.glob(f".{key.digest[:16]}.*.partial"):
                partial.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def store_engine(folder: Path, entry: Entry, engine: bytes) -> None:
    """Store an engine in place of an older one of the same key. Call inside `lock_key`. Raises OutputError."""
    sidecar = folder / f"{entry.name}.json"
    content = entry.model_dump_json(indent=2, exclude={"seal"} if entry.seal is None else None) + "\n"
    _write_atomically(folder / entry.file, engine, key=entry.key)
    try:
        _write_atomically(sidecar, content.encode(), key=entry.key)
    except BaseException:  # Ctrl-C too: an engine without an entry only fills the disk
        (folder / entry.file).unlink(missing_ok=True)
        raise
    for file in _list_files(folder, entry.name) - {folder / entry.file}:
        file.unlink()


def remove_engine(folder: Path, name: str) -> None:
    """Remove an entry and its engine, the JSON first. Raises OutputError."""
    with map_write_errors(folder / name):
        for file in (folder / f"{name}.json", *_list_files(folder, name)):
            file.unlink(missing_ok=True)


def clean_up(folder: Path, *, older_than_s: float = 3600.0) -> int:
    """Remove engines without an entry and the partial files of killed builds; return their number.

    Files younger than `older_than_s` may belong to a running build and are left alone.
    """
    if not check_folder(folder):
        return 0
    used = {entry.file for entry in read_entries(folder)[0]}
    orphans = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name not in used]
    old = [path for path in orphans if time.time() - path.lstat().st_mtime > older_than_s]
    with map_write_errors(folder):
        for path in old:
            path.unlink(missing_ok=True)
    return len(old)


def _list_files(folder: Path, name: str) -> set[Path]:
    return {path for path in folder.iterdir() if path.name.startswith(f"{name}-")}


def _write_atomically(path: Path, content: bytes, *, key: Key) -> None:
    """Write a file in one step and wait until it is on disk; a failed write leaves nothing behind."""
    with (
        map_write_errors(path),
        NamedTemporaryFile(dir=path.parent, prefix=f".{key.digest[:16]}.", suffix=".partial", delete=False) as partial,
    ):
        try:
            partial.write(content)
            partial.flush()
            os.fsync(partial.fileno())
            os.replace(partial.name, path)
        except BaseException:
            os.unlink(partial.name)
            raise
