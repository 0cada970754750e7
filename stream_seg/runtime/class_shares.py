"""Share of each class in the newest frame of an output, computed only when somebody asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stream_seg.frame import Frame, Semantic

INTERVAL_S = 1.0
"""Shares of a stream are computed at most once in this time, however often they are asked for."""


class _Measured(NamedTuple):
    time_s: float
    semantic: Semantic
    shares: Mapping[str, float]


class ClassShares:
    """Class shares of one output by stream. The stage's thread adds frames, any thread reads shares."""

    def __init__(self) -> None:
        self._newest: dict[str, Semantic | None] = {}
        self._measured: dict[str, _Measured] = {}

    def add(self, frame: Frame) -> None:
        """Store the classes of the newest frame; a placeholder has none."""
        self._newest[frame.stream] = frame.semantic

    def measure(self, stream: str, now_s: float) -> Mapping[str, float]:
        """Return the share of the image that each class covers, 0 to 1; empty for a stream without classes.

        `now_s` is the reading of a monotonic clock.
        """
        semantic, last = self._newest.get(stream), self._measured.get(stream)
        if semantic is None:
            return {}
        if last is None or (last.semantic is not semantic and now_s - last.time_s >= INTERVAL_S):
            from stream_seg.ops.labels import class_shares  # imports numba: too slow for a help text

            shares = class_shares(semantic.labels, semantic.classes).tolist()
            last = _Measured(now_s, semantic, dict(zip(semantic.classes.names, shares, strict=True)))
            self._measured[stream] = last
        return last.shares
