"""Guard the process that runs a graph: one that stands still as a whole ends, and may open the files it needs."""

from __future__ import annotations

import faulthandler
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from stream_seg.runtime.systemd import notify_systemd

INTERVAL_S = 1.0
"""Time between two signs of life; less for a `freeze_s` below four seconds."""
FILES, FILES_PER_THREAD = 256, 4
"""Files that a process may open besides those of the graph, and for each stage and link."""


def raise_file_limit(threads: int) -> None:
    """Raise the soft limit on open files as far as a graph of so many stages and links needs.

    1024, the usual soft limit, is less than 200 outputs open; the hard limit stays as it is.
    """
    needed = FILES + FILES_PER_THREAD * threads
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard < 0 else min(needed, hard), hard))


@contextmanager
def guard_process(freeze_s: float, *, alive: Callable[[], bool]) -> Iterator[None]:
    """End the process, with the stacks of all threads, if its threads stand still for `freeze_s` during the body.

    A thread arms a timer in C again and again (faulthandler), which fires if a library keeps the GIL for so long: exit
    code 1. 0: never. The same thread tells systemd's watchdog that the process lives, as long as `alive` returns True.
    """
    ended, interval_s = Event(), min(INTERVAL_S, freeze_s / 4 if freeze_s else INTERVAL_S)

    def keep_alive() -> None:
        while not ended.wait(interval_s):
            arm()
            if alive():
                notify_systemd("WATCHDOG=1")

    def arm() -> None:
        if freeze_s:
            with suppress(RuntimeError):  # no further thread can be started now
                faulthandler.dump_traceback_later(freeze_s, exit=True, file=2)

    thread = Thread(target=keep_alive, name="guard", daemon=True)
    thread.start()  # first: without it nobody would stop the timer
    arm()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()
