"""A frame: one image of a stream with everything known about it."""

from stream_seg.frame.frame import NONE_MISSED, Age, Frame, Stamp, Truth
from stream_seg.frame.pending_image import PendingImage, read_image
from stream_seg.frame.semantic import EngineInfo, LazyScores, ReferenceScores, Semantic, WarpedScores
from stream_seg.frame.signal import SOURCE_STATES, STATES, Signal, SourceState, State
from stream_seg.frame.temporal import QUALITY_CHANGES, RESETS, FrameMotion, QualityChange, Reset, Temporal

__all__ = [
    "NONE_MISSED",
    "QUALITY_CHANGES",
    "RESETS",
    "SOURCE_STATES",
    "STATES",
    "Age",
    "EngineInfo",
    "Frame",
    "FrameMotion",
    "LazyScores",
    "PendingImage",
    "QualityChange",
    "ReferenceScores",
    "Reset",
    "Semantic",
    "Signal",
    "SourceState",
    "Stamp",
    "State",
    "Temporal",
    "Truth",
    "WarpedScores",
    "read_image",
]
