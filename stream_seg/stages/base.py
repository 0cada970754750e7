"""A stage is a function from frames to frames.

It is a dataclass whose fields are its YAML keys and whose `__call__` is a generator. What it opens, it opens in a
`with` round its loop, so that closing the generator closes the device. It never sees a socket, a thread or another
stage, so `list(Smooth()(frames))` is a complete test. A source ignores its input; as the value of its generator it may
return what it missed after its last frame, {reason: count}. An output yields every frame when it is done with it
(written, shown), so that it is measured like any stage; one that returns early ends the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, TypeAlias

from pydantic import ConfigDict

from stream_seg.frame import Frame

Frames: TypeAlias = Iterator[Frame]
Policy: TypeAlias = Literal["latest", "every"]
"""How a stage receives frames: only the newest (live), or every one (recorded)."""

STRICT = ConfigDict(extra="forbid", strict=False, validate_default=True)
"""The pydantic configuration of every stage: `@dataclass(config=STRICT)` with pydantic.dataclasses.dataclass."""


class Stage(Protocol):
    """Frames in, frames out, one at a time and in order."""

    def __call__(self, frames: Frames, /) -> Frames: ...
