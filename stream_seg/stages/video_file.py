"""A video file: H.264, 8 bit 4:2:0, BT.709, at the times of the frames, and readable at any moment."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import av
import cv2
from av.container import OutputContainer
from av.video.stream import VideoStream

from stream_seg.errors import OutputError
from stream_seg.frame import Frame
from stream_seg.stages.constant_rate import ConstantRate
from stream_seg.stages.encoder import Encoding, add_stream
from stream_seg.stages.encoder_frames import EncoderFrames
from stream_seg.stages.file_clock import FileClock
from stream_seg.stages.growing_file import GrowingFile
from stream_seg.types import Image

FINEST_TICK, MATROSKA_TICK = Fraction(1, 1_000_000), Fraction(1, 1000)
"""Seconds: the finest resolution of times in .mp4, and that of .mkv."""
LARGEST_SIDE, LARGEST_AREA = 16384, 16384 * 16000
"""Limits of an image: of x264 for a side, and of FFmpeg for the number of pixels."""
BUFFER_BYTES = 2**20
"""FFmpeg hands packets to the file in pieces of this size."""
FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    # A fragment of 250 ms is written when the frame after it comes. At the end an index is appended, and 8 bytes at the
    # beginning make one block of all fragments: an ordinary file, after milliseconds at any length. A file of shorter
    # fragments opens more slowly: in 0.5 s for an hour, if each frame is one.
    ".mp4": ("mp4", {"movflags": "+hybrid_fragmented", "frag_duration": "250000", "flush_packets": "1"}),
    # A cluster ends after 1 ms, so each frame is one, written when the next one comes.
    ".mkv": ("matroska", {"cluster_time_limit": "1", "flush_packets": "1"}),
}
"""FFmpeg's format and its options by suffix."""


class Extent(NamedTuple):
    """A number of frames, and the end of the last one in ticks."""

    frames: int = 0
    end: int = 0


class VideoFile:
    """A video in a growing file, with the size and the ticks of its first frame.

    A kill loses the frame in the encoder, whose duration the next one determines, and the open fragment: 250 ms
    in .mp4, one frame in .mkv. Raises OutputError for an image that H.264 cannot hold.
    """

    def __init__(self, file: GrowingFile, encoding: Encoding, first: Frame) -> None:
        self._file, self._encoding = file, encoding
        self._size = even_size(first.image)
        self._format, self._options = FORMATS[file.path.suffix.lower()]
        require_encodable(first.image, file)
        self._fps = None if encoding.fps is None else Fraction(str(encoding.fps))
        finest = max(first.time_base, FINEST_TICK)
        self._tick = MATROSKA_TICK if self._format != "mp4" else 1 / self._fps if self._fps else finest
        self._clock = FileClock(finest if self._fps else self._tick)
        self._constant_rate = ConstantRate(self._fps, self._tick) if self._fps else None
        self._frames = EncoderFrames(self._size, reuse=self._constant_rate is None)  # which keeps frames to repeat them
        self._first: av.VideoFrame | None = None
        self._encoder: tuple[OutputContainer, VideoStream] | None = None
        self._added, self._readable = Extent(), Extent()  # in the container, and in its fragments that were written
        self._closing = False

    def add(self, frame: Frame) -> None:
        """Encode a frame. The first one is delayed if the second determines the rate. Raises OSError or FFmpegError."""
        converted = self._convert(frame)
        for shown in (converted,) if self._constant_rate is None else self._constant_rate.add(converted):
            self._encode(shown)

    def close(self) -> None:
        """Encode the delayed frames and complete the file. Raises OSError or FFmpegError, also at a second call."""
        if self._first is None:
            return
        if not self._closing:
            self._closing = True
            for shown in () if self._constant_rate is None else self._constant_rate.finish():
                self._encode(shown)
            container, stream = self._encoder or self._begin(self._first)
            with container:
                self._mux(container, stream.encode(None))
        if self._file.failure is not None:  # PyAV does not complete such a file
            raise self._file.failure
        self._readable = self._added

    def extent(self) -> str:
        """Return how much can be read, such as "43 frames (1.43 s)"; "" for nothing."""
        frames, end = self._readable
        return f"{frames} frames ({float(end * self._tick):.2f} s)" if frames else ""

    def _encode(self, frame: av.VideoFrame) -> None:
        is_first, begun = self._first is None, self._encoder is not None
        self._first = self._first or frame
        if is_first and self._constant_rate is None:
            return
        container, stream = self._encoder or self._begin(self._first)
        if begun or not is_first:  # the beginning encodes the first
            self._mux(container, stream.encode(frame))

    def _mux(self, container: OutputContainer, packets: list[Any]) -> None:
        if self._file.failure is not None:  # FFmpeg crashes if it writes a header again that it could not write
            raise self._file.failure
        for packet in packets:
            size, added = self._file.size, Extent(self._added.frames + 1, packet.pts + packet.duration)
            container.mux_one(packet)
            if self._file.size > size:  # the fragment before this packet
                self._readable = self._added
            self._added = added

    def _convert(self, frame: Frame) -> av.VideoFrame:
        converted = self._frames.convert(fit_image(frame.image, self._size))
        converted.time_base = self._clock.tick
        converted.pts, converted.duration = self._clock.place(frame.pts * frame.time_base)
        return converted

    def _begin(self, first: av.VideoFrame) -> tuple[OutputContainer, VideoStream]:
        encoding, tick = self._encoding, self._tick
        container = av.open(
            self._file, "w", format=self._format, container_options=self._options, buffer_size=BUFFER_BYTES
        )
        if encoding.title:
            container.metadata["title"] = encoding.title
        # By the first two frames, within what an encoder accepts.
        usual_rate = min(max(self._fps or 1 / (self._clock.interval * tick), Fraction(1)), Fraction(240))
        rate = Fraction(encoding.rate) if encoding.rate else usual_rate
        stream = add_stream(container, encoding, size=self._size, rate=rate, tick=tick)
        self._encoder = container, stream
        self._mux(container, stream.encode(first))
        return self._encoder


def require_encodable(image: Image, file: GrowingFile) -> None:
    """Raise OutputError for an image that is too small or too large for H.264."""
    height, width = even_size(image)
    if not (height and width):
        reason = "H.264 needs at least 2 pixels a side"
    elif max(height, width) > LARGEST_SIDE:
        reason = f"H.264 ends at {LARGEST_SIDE} pixels a side"
    elif height * width > LARGEST_AREA:
        reason = f"the encoder ends at {LARGEST_AREA / 1e6:.0f} million pixels"
    else:
        return
    raise OutputError(f"cannot write {file.path}: {reason}; the image is {image.shape[1]}x{image.shape[0]}")


def even_size(image: Image) -> tuple[int, int]:
    """Return (height, width), each rounded down to an even number."""
    height, width = image.shape[:2]
    return height - height % 2, width - width % 2


def fit_image(image: Image, size: tuple[int, int]) -> Image:
    """Return the image at `size` = (height, width): cropped by up to one pixel a side, or scaled with black bars."""
    height, width = size
    if even_size(image) == size:
        return image[:height, :width]
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    scaled = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    right, bottom = width - inner[0] - left, height - inner[1] - top
    fit: Image = cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_CONSTANT)  # type: ignore[assignment]
    return fit
