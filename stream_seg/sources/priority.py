"""Priority of the threads that read live sources."""

from __future__ import annotations

import os
import sys

READER_NICENESS = 15
"""Added to the niceness of the program. On a busy core a reader gets a thirtieth of the time of another thread. With
10, a tenth, eight cameras reach a tenth less frames/s in all; with 19 a camera may pause for a second."""
LOWEST = 19


def lower_priority() -> str | None:
    """Let the calling thread, and the threads that it starts, give way to all others of the program.

    Return the reason if the system does not do that, else None. Only Linux has a niceness of each thread; elsewhere it
    would be that of the whole process.
    """
    if sys.platform != "linux":
        return f"{sys.platform} has no niceness of threads"
    try:
        niceness = min(LOWEST, os.getpriority(os.PRIO_PROCESS, 0) + READER_NICENESS)
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except OSError as error:
        return f"niceness {READER_NICENESS}: {error.strerror}"
    return None
