"""State of a stage's thread, read by the watchdog and at the end of a run."""

from __future__ import annotations

from typing import Literal, TypeAlias

from stream_seg.frame import Frame

State: TypeAlias = Literal["new", "loading", "waiting", "working", "blocked", "finishing", "ended"]
"""new: not started. loading: before it asks for its first frame. waiting: for a frame. working: on a frame, or on the
next one. blocked: the next stage does not take its frame yet. finishing: after the last frame."""
BUSY: tuple[State, ...] = ("loading", "working", "finishing")
"""States in which the stage's own code runs."""


class Activity:
    """State of a stage's thread. That thread writes, any thread reads; `steps` counts the signs of progress."""

    def __init__(self) -> None:
        self.state: State = "new"
        self.steps = 0
        self.within_s = 0.0
        """Time that the stage expects its current step to take."""
        self._doing: str | tuple[Literal["at", "after"], Frame] = ""

    def enter(self, state: State, frame: Frame | None = None, *, place: Literal["at", "after"] = "at") -> None:
        """Enter a state; `frame` is the frame that the stage works on (at) or has yielded last (after)."""
        self.within_s = 0.0
        self._doing = state if frame is None else (place, frame)
        self.state = state
        self.steps += 1

    def expect(self, doing: str, within_s: float = 0.0) -> None:
        """Note progress, and the time that the stage expects its current step to take from now on."""
        self._doing, self.within_s = doing, within_s
        self.steps += 1

    @property
    def excused(self) -> bool:
        """True while the stage is where a stop must not wait for it: loading, or in a step that it announced."""
        return self.state not in BUSY or self.state == "loading" or self.within_s > 0

    def __str__(self) -> str:
        """Return the activity: "loading", "at frame front:123", "after frame front:123", or the text of `expect`."""
        if isinstance(doing := self._doing, str):
            return doing
        place, frame = doing
        return f"{place} frame {frame.stream}:{frame.seq}"
