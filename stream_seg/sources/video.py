"""Pictures of a video: files, http, RTSP and V4L2 cameras through FFmpeg."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from stream_seg.errors import Reason, SourceError
from stream_seg.sources.container import opened, reason_of, without_address
from stream_seg.sources.ffmpeg_memory import allow
from stream_seg.sources.image_header import WIDEST_PIXEL
from stream_seg.sources.picture import Mirroring, Picture, Pictures, upright_bgr
from stream_seg.sources.uri import Source

HIGHEST_RATE = 1000
"""Frames per second: what no camera gives, and what a header may not ask of anyone."""
INDEXED = ("mp4", "matroska", "avi")
"""Containers, of FFmpeg's names, in which a corrupt packet is one that the end of the file cuts short."""


def video_pictures(
    source: Source,
    options: Mapping[str, str],
    *,
    timeouts_s: tuple[float, float],
    max_pixels: int,
    threads: int,
    stay_on_host: bool = False,
) -> Pictures:
    """Upright BGR pictures. Raises SourceError where the stream cannot be opened, is too large or breaks off, there
    with the number of the last good frame and after every frame before the break.

    A picture that the decoder flags as corrupt counts as one that could not be decoded: a mask of what the camera
    never saw would be a wrong answer that looks right.
    """
    limit = {"max_pixels": str(max_pixels)}
    with opened(source, {**options, **limit}, timeouts_s=timeouts_s, stay_on_host=stay_on_host) as (container, stream):
        if stream.width * stream.height > max_pixels:
            size = f"{stream.width}x{stream.height} pixels"
            raise SourceError(
                f"{source.shown}: is {size}, more than max_pixels ({max_pixels}) allows", reason="not allowed"
            )
        allow(WIDEST_PIXEL * stream.width * stream.height)
        if (stream.average_rate or 0) > HIGHEST_RATE:
            rate = f"{float(stream.average_rate or 0):g} frames/s"
            raise SourceError(f"{source.shown}: claims {rate}, more than {HIGHEST_RATE}", reason="not allowed")
        stream.codec_context.options = limit
        stream.codec_context.thread_count = threads
        # Each thread of FRAME holds a picture back: at 30 frames/s on 16 cores half a second.
        stream.thread_type = "SLICE" if source.live else "AUTO"
        time_base = stream.time_base or Fraction(1, av.time_base)
        reformatter, mirroring, last = VideoReformatter(), Mirroring(), None
        try:
            for number, frame in enumerate(_frames(container, stream)):
                if frame is None:
                    yield None
                    continue
                captured_ns = time.monotonic_ns()
                image = upright_bgr(frame, reformatter, mirrored=mirroring.of(frame))
                last = number
                yield Picture(
                    image, frame.pts, _duration(frame, time_base, stream.average_rate), time_base, captured_ns
                )
        except _BreaksOffError as error:
            where = "before its first frame" if last is None else f"after frame {last}"
            raise SourceError(f"{source.shown}: breaks off {where} ({error})", reason=error.reason) from error.__cause__


def promised_frames(container: InputContainer, stream: VideoStream) -> int:
    """How many frames the index of an mp4 promises, 0 where there is none. Frames cut away by its edit list do not
    count. Other containers' counts are guesses of whoever wrote the header."""
    if "mp4" not in container.format.name or not stream.frames:
        return 0
    return sum(not entry.is_discard for entry in stream.index_entries)


def expected_video_frames(source: Source) -> int | None:
    """What the header says: a count, or duration x rate; None where it says neither. Raises SourceError."""
    with opened(source, {}, timeouts_s=(5.0, 5.0)) as (container, stream):
        count = promised_frames(container, stream) or stream.frames
        if not count and container.duration and stream.average_rate:
            count = round(container.duration / av.time_base * stream.average_rate)
        return count or None


class _BreaksOffError(Exception):
    """A stream ended where it should not have."""

    def __init__(self, words: str, *, reason: Reason = "broken") -> None:
        super().__init__(words)
        self.reason = reason


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame | None]:
    """Frames as decoded, None for a damaged one; at the end _BreaksOffError unless the stream ended as it should."""
    promised, read, ending, cut_short = promised_frames(container, stream), 0, None, False
    try:
        for packet in container.demux(stream):
            # Half a packet, which an error among the last pictures would follow, costs PyAV all that the decoder
            # still holds. In streams (mpegts, hls, rtsp) the flag says that something is missing somewhere in it.
            if packet.is_corrupt and any(name in container.format.name for name in INDEXED):
                cut_short = True
            elif packet.size:  # An empty one would end the decoder.
                read += not packet.is_discard
                yield from _decoded(stream, packet)
    except av.FFmpegError as error:
        ending = error
    # What the decoder still holds comes before the break.
    yield from _decoded(stream, None)
    if ending is not None:
        reason, words = reason_of(ending)
        raise _BreaksOffError(words, reason=reason) from without_address(ending)
    if read < promised:
        raise _BreaksOffError(f"its index promises {promised} frames")
    if cut_short:
        raise _BreaksOffError("its last picture is cut short")


def _decoded(stream: VideoStream, packet: av.Packet[VideoStream] | None) -> Iterator[av.VideoFrame | None]:
    try:
        frames = stream.decode(packet)
    except av.FFmpegError:
        yield None
        return
    for frame in frames:
        yield None if frame.is_corrupt else frame


def _duration(frame: av.VideoFrame, time_base: Fraction, rate: Fraction | None) -> int:
    return frame.duration or (round(1 / (rate * time_base)) if rate else 0)
