"""The H.264 encoder of video files, x264: its speeds and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from av.codec.context import Flags, ThreadType
from av.container import OutputContainer
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from stream_seg.backends.cpu import count_cores

Speed: TypeAlias = Literal["fast", "balanced", "small"]

BT709 = 1
"""Number of BT.709 in H.264's tables of matrices, of primaries and of transfer functions."""
MOST_SLICES = 4
"""Encoder threads by default, at most: every thread encodes a slice, and four make a file 0.8 % larger here."""


class Settings(NamedTuple):
    """Settings of x264: a preset, a constant rate factor, and parameters in FFmpeg's `x264-params`."""

    preset: str
    crf: int
    parameters: str = ""


SPEEDS: Mapping[Speed, Settings] = MappingProxyType(
    {
        # Without the filter at block edges (deblock) it takes a tenth less time, and loses twice as much SSIM.
        "fast": Settings("ultrafast", 21, "deblock=0,0"),
        "balanced": Settings("superfast", 22),
        "small": Settings("faster", 22),
    }
)
"""By name. `benchmarks/encoder.py` measures them; docs/operation.md has the figures."""


@dataclass(frozen=True)
class Encoding:
    """Settings of the encoder and the container: keys of `write`. `crf` and `preset` replace those of `speed`."""

    speed: Speed
    crf: int | None
    preset: str | None
    rate: float | None
    fps: float | None
    threads: int | None
    title: str | None

    def options(self) -> dict[str, str]:
        """Return the options of FFmpeg's libx264. A preset of the user's gets no parameters."""
        settings = SPEEDS[self.speed]
        options = {
            "preset": self.preset or settings.preset,
            "crf": str(self.crf or settings.crf),
            # The encoder holds one frame instead of eleven. It costs up to a tenth more bytes at the same SSIM.
            "rc-lookahead": "0",
        }
        return options if self.preset or not settings.parameters else {**options, "x264-params": settings.parameters}


def add_stream(
    container: OutputContainer, encoding: Encoding, *, size: tuple[int, int], rate: Fraction, tick: Fraction
) -> VideoStream:
    """Add an H.264 stream of `size` = (height, width) to a container, with its times in ticks of so many seconds."""
    stream = container.add_stream("libx264", rate.limit_denominator(10_000), encoding.options(), time_base=tick)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    # Threads that encode frames side by side would hold one frame each.
    context.thread_type = ThreadType.SLICE
    context.thread_count = encoding.threads or min(MOST_SLICES, count_cores())
    # With B-frames the frames are stored out of order, and the duration of the file, the sum of the stored steps,
    # is wrong if the rate varies. They also take a third more time here, for the same size.
    context.max_b_frames = 0
    context.flags |= Flags.frame_duration  # use the durations of the frames, for the last one
    context.color_range = ColorRange.MPEG
    context.colorspace = context.color_primaries = context.color_trc = BT709
    return stream
