"""Time limits that hold on an idle machine, and decide nothing on a busy one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

TimeLimit: TypeAlias = Callable[[float], AbstractContextManager[None]]
"""`with time_limit(seconds):` fails if its body takes longer."""
SLACK = 10
"""Without --soak a limit is this many times as long."""


def make_time_limit(*, exact: bool) -> TimeLimit:
    """Return `time_limit`, exact or with slack."""

    @contextmanager
    def time_limit(seconds: float) -> Iterator[None]:
        allowed_s = seconds * (1 if exact else SLACK)
        began_s = time.monotonic()
        yield
        took_s = time.monotonic() - began_s
        assert took_s < allowed_s, f"took {took_s:.2f} s, the limit is {allowed_s:g} s"

    return time_limit
