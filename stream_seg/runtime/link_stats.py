"""Per-link counters: entered, delivered, dropped by reason, in flight."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

from stream_seg.stages.base import Policy

DROP_REASONS = ("superseded", "stopped")


@dataclass(frozen=True)
class LinkCounts:
    """Counts of a link at one moment. Always: entered = delivered + sum(dropped) + in_flight."""

    entered: int
    delivered: int
    dropped: dict[str, int]

    @property
    def in_flight(self) -> int:
        """Frames neither delivered nor dropped: at the sending end or on the way."""
        return self.entered - self.delivered - sum(self.dropped.values())


@dataclass
class LinkStats:
    """Name, policy and counters of a link. Both ends update it, from threads of their own."""

    name: str
    policy: Policy
    _entered: int = 0
    _delivered: int = 0
    _dropped: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(DROP_REASONS, 0)))
    _lock: Lock = field(default_factory=Lock)

    def enter(self) -> None:
        """Count a frame that was handed to the sending end."""
        with self._lock:
            self._entered += 1

    def drop(self, reason: str) -> None:
        """Count an entered frame that will not be delivered."""
        with self._lock:
            self._dropped[reason] += 1

    def deliver(self) -> None:
        """Count a frame that the receiving stage took."""
        with self._lock:
            self._delivered += 1

    def drop_rest(self) -> None:
        """Count the frames in flight as dropped, reason "stopped": both ends have closed."""
        with self._lock:
            self._dropped["stopped"] += self._entered - self._delivered - sum(self._dropped.values())

    def counts(self) -> LinkCounts:
        """Return the counts, consistent at one moment."""
        with self._lock:
            return LinkCounts(self._entered, self._delivered, dict(self._dropped))
