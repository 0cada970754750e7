"""Relation of a frame to the earlier frames of its stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from stream_seg.ops.motion import Confidence, Luma, Motion

Reset: TypeAlias = Literal["start", "gap", "back", "shape", "cut"]
"""Reason to discard the past of a stream: its first frame, a pause, time going back (a camera that reconnected), a new
shape of images or scores, or a cut to unrelated content."""
RESETS: tuple[Reset, ...] = get_args(Reset)
QualityChange: TypeAlias = Literal["slow", "spare"]
"""Reason for a change of the quality level: frames came too late, or there was time to spare."""
QUALITY_CHANGES: tuple[QualityChange, ...] = get_args(QualityChange)


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
