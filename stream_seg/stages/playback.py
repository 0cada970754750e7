"""Playback for outputs that people watch: recordings at their own speed, and what happens after their end."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

from stream_seg.errors import ConfigError
from stream_seg.frame import Frame
from stream_seg.sources.timeline import LEAP_S, Pacer
from stream_seg.stages.base import Context

PACE = "play at the recording's speed; none: only if every output is watched (page, window)"
STAY = "stay after a recording until the user quits; none: as pace, on the command line without --report"
SHARED_GAP_S = 1
"""Longest pause in a recording that is kept where streams share the output: the other streams wait as well."""
SLACK_S = 1.0
"""Delay that a recording still catches up."""
POLL_S = 0.05
"""Interval at which a waiting output checks for keys and for the end of the run."""


def resolve_pace(pace: bool | None, context: Context) -> bool:
    """Return the key `pace` of an output; None: True if everything that runs is a recording that people watch.

    Raises ConfigError for `pace: true` with policy latest: while a frame waits, the recording would run ahead of it.
    """
    if pace is None:
        return context.recorded and context.only_watched and context.policy == "every"
    if pace and context.recorded and context.policy == "latest":
        raise ConfigError(f"{context.name}.pace: needs policy every; with latest the recording drops frames instead")
    return pace


def resolve_stay(stay: bool | None, context: Context) -> bool:
    """Return the key `stay` of an output; None: True if a person watches a recording and ends the run."""
    return context.attended and context.recorded and context.only_watched if stay is None else stay


class Playback:
    """Hold back the frames of recordings until they are due; those of live streams, such as loops, pass at once."""

    def __init__(self, context: Context, *, pace: bool) -> None:
        self._context = context
        self._pace = pace and context.policy == "every"
        self._pacers: dict[str, Pacer] = {}

    def hold(self, frame: Frame, *, poll: Callable[[], bool] = lambda: True) -> bool:
        """Wait until a frame is due or the run ends. Return False as soon as `poll`, called meanwhile, does."""
        if not self._pace or self._context.live(frame.stream):
            return True
        pacer = self._pacers.setdefault(frame.stream, Pacer(slack_s=SLACK_S))
        longest_s = LEAP_S if len(self._pacers) == 1 else SHARED_GAP_S
        due_s = pacer.due_s(float(frame.pts * frame.time_base), monotonic(), longest_s=longest_s)
        while (wait_s := due_s - monotonic()) > 0 and not self._context.stopping():
            self._context.busy("waiting until the frame is due")
            sleep(min(wait_s, POLL_S))
            if not poll():
                return False
        return True

    def wait_while(self, condition: Callable[[], bool]) -> None:
        """Wait while a condition holds and the run goes on. The next frame is due at the end of a wait."""
        while condition() and not self._context.stopping():
            self._context.busy("waiting for the user")
            sleep(POLL_S)
            self._pacers.clear()
