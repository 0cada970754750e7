"""The classes of a frame, computed as late as possible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.types import Classes, Image, Labels, Mask, Scores

if TYPE_CHECKING:
    from stream_seg.ops.motion import Motion


@dataclass(frozen=True, eq=False)
class ReferenceScores:
    """Scores float32 (C, h, w) of one frame, from which the scores of later frames are warped."""

    scores: Scores

    @cached_property
    def unanimous_labels(self) -> Labels:
        """The result of `ops.labels.unanimous_labels`, uint8 (h, w)."""
        from stream_seg.ops.labels import unanimous_labels  # imports numba: too slow for a help text

        return unanimous_labels(self.scores)


@dataclass(frozen=True, eq=False)
class WarpedScores:
    """Scores of an earlier frame, warped to the current frame on first access. `motion` may have any resolution."""

    reference: ReferenceScores
    motion: Motion

    @cached_property
    def scores(self) -> Scores:
        """float32 (C, h, w)."""
        from stream_seg.ops.scores import propagate_scores

        return propagate_scores(self.reference.scores, self.motion)


class LazyScores:
    """Descriptor of `Semantic.scores`: set to an array, `WarpedScores` or None; read as an array or None."""

    def __get__(self, semantic: Any, _: type | None = None) -> NDArray[np.float32] | None:
        if semantic is None:  # dataclasses reads the default of the field from the class
            return None
        stored = vars(semantic)["scores"]
        return stored.scores if isinstance(stored, WarpedScores) else stored

    def __set__(self, semantic: Any, scores: NDArray[np.float32] | WarpedScores | None) -> None:
        vars(semantic)["scores"] = scores


@dataclass(frozen=True)
class EngineInfo:
    """The engine that computed a result, as reports, metrics and the overlay show it: it runs `requests` at a time."""

    network: str
    backend: str
    precision: str
    device: str
    requests: int = 1


@dataclass(frozen=True)
class Semantic:
    """The class of every pixel. All arrays cover the whole image, whatever their size.

    A network gives either `scores`, at its own low resolution, or a `label_map`, at `size`. `labels` and scores warped
    from an earlier frame are computed on first access, because a later stage may replace them.
    """

    classes: Classes
    engine: EngineInfo
    size: tuple[int, int]
    """(height, width) of the network's input, and of `labels`."""
    scores: LazyScores = LazyScores()
    label_map: Labels | None = None
    unknown: Mask | None = None
    """Pixels without a class, which are void in `labels`: those that the key frame of this frame did not show."""
    scaled: Image | None = None
    """The image of the frame at the size of the network's input, if the network ran on it."""

    @property
    def stored_scores(self) -> Scores | WarpedScores | None:
        """The scores as they were set, not warped."""
        return vars(self)["scores"]  # type: ignore[no-any-return]

    @cached_property
    def reference(self) -> ReferenceScores | None:
        """The scores as a reference to warp from; None for a network that gives labels only."""
        return None if self.scores is None else ReferenceScores(self.scores)

    @cached_property
    def labels(self) -> Labels:
        """uint8 (height, width) of `size`."""
        return self.labels_at(self.size)

    def labels_at(self, size: tuple[int, int]) -> Labels:
        """Return labels uint8 of `size` = (height, width). Where there are scores, these are enlarged, not labels."""
        from stream_seg.ops.labels import mark_void  # imports numba: too slow for a help text

        labels = self._labels_at(size)
        return labels if self.unknown is None else mark_void(labels, self.unknown)

    def _labels_at(self, size: tuple[int, int]) -> Labels:
        from stream_seg.ops.labels import resize_labels, upsampled_argmax
        from stream_seg.ops.propagate import propagate_labels

        if self.label_map is not None:
            return resize_labels(self.label_map, size)
        scores = self.stored_scores
        if scores is None:
            raise ValueError("a Semantic needs scores or a label_map")
        if isinstance(scores, WarpedScores):  # two thirds of the time of upsampled_argmax(scores.scores, size)
            reference = scores.reference
            return propagate_labels(reference.scores, reference.unanimous_labels, scores.motion, size=size)
        return upsampled_argmax(scores, size)
