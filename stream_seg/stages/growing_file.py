"""Files that grow while a recording runs, and keep what was written through a crash, a power cut or a full disk.

A recording NAME.SUFFIX grows in NAME.partial.SUFFIX beside it, locked by its writer. It gets its name when it is
complete, and keeps the partial one otherwise. The partial file of a killed run is never touched: the next run writes to
NAME.partial-2.SUFFIX.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from threading import RLock

from stream_seg.errors import OutputError
from stream_seg.files.writing import has_name, make_folder, map_write_errors, publish, resolve_path, try_lock

sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class GrowingFile:
    """A binary file that is written under a partial name. PyAV and the stage write to it, a `Keeper` syncs it.

    After a failed write every later one fails as well. Raises OutputError if the file cannot be created, or if another
    output writes it.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path, self._overwrite = path, overwrite
        self._target = resolve_path(path)
        self._created_folder = not self._target.parent.exists()
        self.failure: OSError | None = None
        """The first error of writing, of syncing, or of looking for the file."""
        self.whole = False
        """The file is complete and on the disk."""
        self._position = self._complete = self._synced = self.size = 0
        self._closing = RLock()  # so that no other thread uses a descriptor that is closed
        with map_write_errors(path):
            if self._target.exists() and not self._target.is_file():
                raise OutputError(f"cannot write {path}: it exists and is not a file")
            make_folder(self._target.parent, path)
            self.partial, self._descriptor = claim_partial(self._target, path)
            self._sync_folder()

    @property
    def name(self) -> str:
        """Path of the partial file, in the folder as the user wrote it unless the file lies behind a link."""
        beside = self.path.with_name(self.partial.name)
        return str(beside if resolve_path(beside.parent) == self.partial.parent else self.partial)

    @property
    def closed(self) -> bool:
        """True after an error or the end: PyAV writes no more then."""
        return self.failure is not None or self._descriptor < 0

    def write(self, data: bytes) -> int:
        """Write all of `data` at the position. Raises the OSError of the first failure, now and at every later call."""
        if self.failure is not None:
            raise self.failure
        try:
            if self._position < self.size:  # a header that refers to what follows must not reach the disk before it
                sync_data(self._descriptor)
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, memoryview(data)[written:], self._position + written)
        except OSError as error:
            self.failure = error
            raise
        self._position += written
        self.size = max(self.size, self._position)
        return written

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, as `io.IOBase.seek` does."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def commit(self) -> None:
        """Note that the file is readable up to its present size."""
        self._complete = self.size

    def sync(self) -> None:
        """Sync new content to the disk, and look for the file in its folder. Callable from any thread.

        Raises OutputError for the first failure; the writer of the file meets it at its next write.
        """
        with self._closing, map_write_errors(self.path):
            if self.closed:
                return
            try:
                self._require_present()
                if self.size != self._synced:
                    synced = self.size
                    sync_data(self._descriptor)
                    self._synced = synced
            except OSError as error:
                self.failure = self.failure or error
                raise

    def finish(self) -> None:
        """Give the complete file its name. Raises OutputError if the file is gone or the name is taken."""
        with self._closing, map_write_errors(self.path):  # `sync` must not look for the partial file meanwhile
            if self.failure is not None:
                raise self.failure
            self._require_present()
            sync_data(self._descriptor)
            self.whole = True
            publish(self.partial, self._target, overwrite=self._overwrite)
            self._sync_folder()
            self.close()

    def keep(self) -> bool:
        """Close the file under its partial name, after a failure without what follows the last `commit`.

        Returns False if the file is gone, or its device does not answer.
        """
        present = False
        with suppress(OSError):
            if self.failure is not None:
                os.ftruncate(self._descriptor, self._complete)
            present = has_name(self._descriptor, self.partial)
            sync_data(self._descriptor)
        self.close()
        return present

    def close(self) -> None:
        """Close the file; it keeps the name that it has. Closing twice is allowed."""
        with self._closing:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def discard(self) -> None:
        """Remove a file without frames, and its folder if that was created for it and is empty."""
        with self._closing:
            with suppress(OSError):
                if has_name(self._descriptor, self.partial):
                    self.partial.unlink()
                if self._created_folder:
                    self._target.parent.rmdir()
            self.close()

    def _require_present(self) -> None:
        """Raise OSError if the partial file was deleted, moved or replaced, or its device does not answer."""
        if not has_name(self._descriptor, self.partial):
            message = f"{self.partial.name} was deleted, moved or replaced during the run"
            raise FileNotFoundError(errno.ENOENT, message)

    def _sync_folder(self) -> None:
        """Sync the name of the file to the disk, where the file system can."""
        with suppress(OSError):
            folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def claim_partial(target: Path, path: Path) -> tuple[Path, int]:
    """Create and lock the partial file of `target`. Return its path and its open descriptor.

    A file with content, a link or anything else of that name is left alone, and the next number is tried. Raises
    OutputError, which names `path`, if another output has locked the file.
    """
    for number in count(1):
        suffix = f".partial{'' if number == 1 else f'-{number}'}{target.suffix}"
        partial = target.with_name(target.stem + suffix)
        try:
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError:
            if os.path.lexists(partial):
                continue
            raise
        with ExitStack() as resources:
            resources.callback(os.close, descriptor)
            if not try_lock(descriptor):
                raise OutputError(f"cannot write {path}: another output is writing it; give each its own path")
            status = os.fstat(descriptor)
            # Another run may have finished or discarded the file since it was opened.
            if stat.S_ISREG(status.st_mode) and not status.st_size and has_name(descriptor, partial):
                resources.pop_all()
                return partial, descriptor
    raise AssertionError("unreachable")
