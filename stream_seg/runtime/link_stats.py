"""The books of a link: where its frames are, exactly, at every moment."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

from stream_seg.stages.base import Policy

DROP_REASONS = ("superseded", "stopped")


@dataclass(frozen=True)
class Account:
    """Where a link's frames are. Always: entered = delivered + sum(dropped) + in_flight."""

    entered: int
    delivered: int
    dropped: dict[str, int]

    @property
    def in_flight(self) -> int:
        """Frames neither delivered nor dropped: in the outbox or on the way."""
        return self.entered - self.delivered - sum(self.dropped.values())


@dataclass
class Link:
    """An edge by name, its policy and its books."""

    name: str
    policy: Policy
    _entered: int = 0
    _delivered: int = 0
    _dropped: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(DROP_REASONS, 0)))
    _lock: Lock = field(default_factory=Lock)

    def enter(self) -> None:
        """A frame was given to the sending end."""
        with self._lock:
            self._entered += 1

    def drop(self, reason: str) -> None:
        """A frame that had entered will not be delivered."""
        with self._lock:
            self._dropped[reason] += 1

    def deliver(self) -> None:
        """The receiving stage has a frame."""
        with self._lock:
            self._delivered += 1

    def settle(self) -> None:
        """Both ends have closed: what was still on the way is dropped as "stopped"."""
        with self._lock:
            self._dropped["stopped"] += self._entered - self._delivered - sum(self._dropped.values())

    def account(self) -> Account:
        """The books, consistent at one moment."""
        with self._lock:
            return Account(self._entered, self._delivered, dict(self._dropped))
