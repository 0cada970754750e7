"""State of a live source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from stream_seg.errors import Reason

State: TypeAlias = Literal["starting", "up", "stalled", "down"]
STATES: tuple[State, ...] = get_args(State)
SourceState: TypeAlias = Literal[State, "ended"]
"""State of a source as metrics and page show it; ended: a recording that is over."""
SOURCE_STATES: tuple[SourceState, ...] = (*STATES, "ended")


@dataclass(frozen=True)
class Signal:
    """State of a live source that has no image to deliver.

    `state` is starting (never up so far), stalled (silent, or repeating one image) or down (unreachable). `reason` is
    None while the source is opened for the first time. `since_ns` is the CLOCK_MONOTONIC time of its last good image,
    or of its start; `attempts` counts the attempts to open it since then.
    """

    state: State
    reason: Reason | None
    since_ns: int
    attempts: int = 0
