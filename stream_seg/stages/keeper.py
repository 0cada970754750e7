"""A thread beside an output, for work on its files that must not delay a frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol

from stream_seg.errors import OutputError, describe_exception

LOG = logging.getLogger(__name__)

SYNC_S = 0.5
"""Interval at which files are synced: a power cut costs what was written since, and a deleted file is noticed."""


class Syncable(Protocol):
    """A file or folder that is looked after until it is closed."""

    @property
    def closed(self) -> bool:
        """True after an error or the end."""

    def sync(self) -> None:
        """Sync new content to the disk, and look for it. Raises OutputError."""


class Keeper:
    """Syncs growing files every SYNC_S seconds and runs tasks, in a thread. A context manager; it ends after its tasks.

    `fail` is called in the thread with each OutputError: of a task, of a file that was deleted, of a device that fails.
    """

    def __init__(self, fail: Callable[[OutputError], None], *, name: str) -> None:
        self._fail = fail
        self._files: list[Syncable] = []
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=f"{name} files", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.put(None)
        self._thread.join()

    def add(self, file: Syncable) -> None:
        """Sync a file from now on, until it is closed."""
        self._files = [*(other for other in self._files if not other.closed), file]

    def run(self, task: Callable[[], None]) -> None:
        """Run a task, which may raise OutputError, after those before it."""
        self._tasks.put(task)

    def _run(self) -> None:
        due_s = time.monotonic() + SYNC_S
        while True:
            wait_s = due_s - time.monotonic()
            if wait_s <= 0:
                due_s = time.monotonic() + SYNC_S
                for file in self._files:
                    self._try(file.sync)
                continue
            try:
                task = self._tasks.get(timeout=wait_s)
            except Empty:
                continue
            if task is None:
                return
            self._try(task)

    def _try(self, task: Callable[[], None]) -> None:
        try:
            task()
        except OutputError as error:
            self._fail(error)
        except Exception as error:  # the thread must not end with files that are not finished
            LOG.debug("%s", self._thread.name, exc_info=True)
            self._fail(OutputError(f"{self._thread.name}: {describe_exception(error)}"))
