"""A frame: one image of a stream with everything known about it.

Frames are immutable; a stage yields `dataclasses.replace(frame, ...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import ConfigError, Reason
from stream_seg.types import Classes, Image, Labels, Mask, Scores

if TYPE_CHECKING:
    from stream_seg.ops.motion import Confidence, Luma, Motion

NONE_MISSED: Mapping[str, int] = MappingProxyType({})

State: TypeAlias = Literal["starting", "up", "stalled", "down"]
STATES: tuple[State, ...] = get_args(State)
SourceState: TypeAlias = Literal[State, "ended"]
"""State of a source as metrics and page show it; ended: a recording that is over."""
SOURCE_STATES: tuple[SourceState, ...] = (*STATES, "ended")
Reset: TypeAlias = Literal["start", "gap", "back", "shape", "cut"]
"""Reason to discard the past of a stream: its first frame, a pause, time going back (a camera that reconnected), a new
shape of images or scores, or a cut to unrelated content."""
RESETS: tuple[Reset, ...] = get_args(Reset)
QualityChange: TypeAlias = Literal["slow", "spare"]
"""Reason for a change of the quality level: frames came too late, or there was time to spare."""
QUALITY_CHANGES: tuple[QualityChange, ...] = get_args(QualityChange)


@dataclass(frozen=True, eq=False)
class ReferenceScores:
    """Scores float32 (C, h, w) of one frame, from which the scores of later frames are warped."""

    scores: Scores

    @cached_property
    def unanimous_labels(self) -> Labels:
        """The result of `ops.propagate.unanimous_labels`, uint8 (h, w)."""
        from stream_seg.ops.propagate import unanimous_labels  # imports numba: too slow for a help text

        return unanimous_labels(self.scores)


@dataclass(frozen=True, eq=False)
class WarpedScores:
    """Scores of an earlier frame, warped to the current frame on first access. `motion` may have any resolution."""

    reference: ReferenceScores
    motion: Motion

    @cached_property
    def scores(self) -> Scores:
        """float32 (C, h, w)."""
        from stream_seg.ops.propagate import propagate_scores

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
    """The engine that computed a result, as reports, metrics and the overlay show it."""

    network: str
    backend: str
    precision: str
    device: str


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


@dataclass(frozen=True)
class Truth:
    """Ground truth of a synthetic frame, at the size of its image; `classes` are those of CamVid.

    labels: uint8 (H, W). motion: float32 (H, W, 2), (dx, dy) in pixels to add to (x, y) for the position of the pixel's
    point in the previous frame; None in the first frame and after a cut.
    """

    labels: Labels
    classes: Classes
    motion: NDArray[np.float32] | None


@dataclass(frozen=True)
class FrameMotion:
    """Optical flow from the frame `from_seq` of the stream to this frame, at its own resolution.

    `flow` points backward, as in `ops.motion`; `confidence` is that of each pixel's flow, 0 to 1.
    """

    from_seq: int
    flow: Motion
    confidence: Confidence
    luma: Luma | None = None
    """Luminance of this frame, where it was computed."""


@dataclass(frozen=True)
class Temporal:
    """Relation of a frame's classes to earlier frames."""

    reset: Reset | None = None
    """Reason why `smooth` discarded the past at this frame; None where it did not."""
    confidence: float | None = None
    """Mean confidence, 0 to 1, of the motion that warped the past to this frame; None where nothing was warped."""
    key: bool = True
    """True for a key frame: the network ran on this image."""
    age: int = 0
    """Frames since the key frame that the classes come from; 0: this frame."""
    quality_level: int = 0
    """Current quality level of `segment` with `target_ms`; 0 is full quality."""
    quality_change: QualityChange | None = None
    """Reason why the quality level changed at this frame; None where it did not."""
    every: int | Literal["auto"] = 1
    """Frames from one key frame to the next, at the current quality level."""
    input_size: tuple[int, int] | None = None
    """(height, width) of the network's input at the current quality level; None without key frames."""
    motion: FrameMotion | None = None
    """Motion from the previous frame, where `segment` computed it."""


@dataclass(frozen=True)
class Stamp:
    """The times at which a stage received and yielded a frame, CLOCK_MONOTONIC nanoseconds."""

    stage: str
    began_ns: int
    ended_ns: int


@dataclass(frozen=True)
class Age:
    """Age of an earlier frame when an output finished it, and the quality level at which it was segmented."""

    quality_level: int
    ms: float


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


@dataclass(frozen=True)
class Frame:
    """One image of a stream.

    `seq` counts the images of a stream from 0. A number that never arrives belongs to a frame that was dropped and
    counted. `missed` counts, by reason, the numbers just before this frame that the source could not deliver, so that
    seq advances by 1 + sum(missed) from frame to frame. `pts` is in units of `time_base` seconds. `ages` holds the
    ages that the outputs have reported since the last frame; the graph sets it. A frame with a `signal` is a
    placeholder drawn by its source: it is not segmented.
    """

    stream: str
    seq: int
    pts: int
    time_base: Fraction
    captured_ns: int
    image: Image
    semantic: Semantic | None = None
    truth: Truth | None = None
    temporal: Temporal | None = None
    ages: tuple[Age, ...] = ()
    missed: Mapping[str, int] = field(default_factory=lambda: NONE_MISSED)
    stamps: tuple[Stamp, ...] = ()
    signal: Signal | None = None

    @property
    def time_s(self) -> float:
        """Time of the frame in its stream, in seconds."""
        return float(self.pts * self.time_base)

    @property
    def classes(self) -> Classes:
        """Class names and colours, by label. Raises ConfigError for a frame without labels."""
        return self._require_semantic().classes

    @cached_property
    def labels(self) -> Labels:
        """Labels uint8 (H, W) at the size of the image; 255 is void. Raises ConfigError for a frame without labels."""
        return self.labels_at(self.image.shape[:2])

    def labels_at(self, size: tuple[int, int]) -> Labels:
        """Return labels uint8 of `size` = (height, width). Raises ConfigError for a frame without labels."""
        return self._require_semantic().labels_at(size)

    def _require_semantic(self) -> Semantic:
        if self.semantic is None:
            raise ConfigError(f"frame {self.stream}:{self.seq} has no labels; put a segment stage before this one")
        return self.semantic
