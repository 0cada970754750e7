"""What a stage holds of each stream, for as long as the stream goes on."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

FORGOTTEN = 10_000
"""Frames of other streams after which one is taken to be gone: a camera that was removed. Counted in frames, so that
the same frames give the same classes; ten cameras give so many in half a minute, and nothing is carried over that."""


class Recent(Generic[T]):
    """What is held of each stream, for as long as the stream goes on."""

    def __init__(self) -> None:
        self._frames = 0
        self._held: dict[str, tuple[int, T]] = {}  # the longest silent first

    def get(self, stream: str) -> T | None:
        """What was put last."""
        held = self._held.get(stream)
        return None if held is None else held[1]

    def put(self, stream: str, value: T) -> None:
        """Hold this; once for each frame of the stream."""
        self._frames += 1
        self.drop(stream)
        self._held[stream] = self._frames, value
        silent, (last, _) = next(iter(self._held.items()))
        if self._frames - last >= FORGOTTEN:
            self.drop(silent)

    def drop(self, stream: str) -> None:
        """Hold nothing of it."""
        self._held.pop(stream, None)
