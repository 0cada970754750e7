"""Decoded frames of a video: a file, an http or RTSP stream, a V4L2 camera, through FFmpeg."""

from __future__ import annotations

import struct
import time
from collections.abc import Generator, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from stream_seg.errors import SourceError
from stream_seg.sources.container import WIDEST_PIXEL, allow_allocation, explain_error, open_video, strip_address
from stream_seg.sources.excerpt import NEAR_S, Excerpt, find_key_frame
from stream_seg.sources.uri import Source
from stream_seg.types import Image

MAX_RATE = 1000
"""Frames per second. No camera delivers more, so a header that claims more is rejected."""
INDEXED_FORMATS = ("mp4", "matroska", "avi")
"""FFmpeg's names of the containers in which a corrupt packet is one that the end of the file truncates."""
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, -90: cv2.ROTATE_90_CLOCKWISE}
_ROTATIONS |= {180: cv2.ROTATE_180, -180: cv2.ROTATE_180}


class DecodedFrame(NamedTuple):
    """An image with its times: `pts`, which a stream may omit, and `duration` in units of `time_base` seconds."""

    image: Image
    pts: int | None
    duration: int
    time_base: Fraction
    captured_ns: int


DecodedFrames: TypeAlias = Generator[DecodedFrame | None, None, None]
"""Frames in order; None stands for a frame that could not be decoded."""


def decode_video(
    source: Source,
    options: Mapping[str, str],
    *,
    timeouts_s: tuple[float, float],
    max_pixels: int,
    threads: int,
    stay_on_host: bool = False,
    excerpt: Excerpt | None = None,
) -> DecodedFrames:
    """Yield upright BGR frames; None for one that could not be decoded. See `open_video` for the parameters.

    Only frames of `excerpt` are converted, and a recording is decoded from the key frame before its start.

    Raises SourceError if the stream cannot be opened, is too large or is truncated: then after every frame before the
    break, and with the number of the last one. A frame that the decoder flags as corrupt counts as not decoded: a mask
    of an image that the camera never saw would be a wrong answer that looks right.
    """
    options, excerpt, target = {**options, "max_pixels": str(max_pixels)}, excerpt or Excerpt(), None
    if excerpt.start_s > NEAR_S:
        with open_video(source, options, timeouts_s=timeouts_s, stay_on_host=stay_on_host) as (container, stream):
            if (begin_s := _begin_of(container)) is not None:
                target = find_key_frame(container, stream, begin_s + excerpt.start_s, begin_s=begin_s)
    with open_video(source, options, timeouts_s=timeouts_s, stay_on_host=stay_on_host) as (container, stream):
        _check_limits(source, stream, max_pixels=max_pixels)
        allow_allocation(WIDEST_PIXEL * stream.width * stream.height)
        stream.codec_context.options = {"max_pixels": str(max_pixels)}
        stream.codec_context.thread_count = threads
        # With frame threads every thread delays the output by one frame: at 30 frames/s on 16 cores by half a second.
        stream.thread_type = "SLICE" if source.live else "AUTO"
        time_base = stream.time_base or Fraction(1, av.time_base)
        begin_s = None if source.live else _begin_of(container)
        if target is not None:
            container.seek(target, stream=stream)
        reformatter, layout, mirrored, last = VideoReformatter(), None, False, None
        try:
            for number, frame in enumerate(_decode_stream(container, stream, moved=target is not None)):
                if frame is None:
                    if excerpt.begun:
                        yield None
                    continue
                rate = stream.average_rate
                duration = frame.duration or (round(1 / (rate * time_base)) if rate else 0)
                time_s = None if frame.pts is None else frame.pts * time_base
                begin_s = time_s if begin_s is None else begin_s
                since_s = None if time_s is None or begin_s is None else time_s - begin_s
                choice = excerpt.choose(since_s, interval_s=duration * time_base)
                if choice == "end":
                    return
                last = f"frame {number}" if since_s is None or target is None else f"{float(since_s):.3f} s"
                if choice == "skip":
                    continue
                captured_ns = time.monotonic_ns()
                if layout != (frame.rotation, frame.width, frame.height):  # is_mirrored leaves garbage
                    layout, mirrored = (frame.rotation, frame.width, frame.height), is_mirrored(frame)
                image = to_upright_bgr(frame, reformatter, mirrored=mirrored)
                yield DecodedFrame(image, frame.pts, duration, time_base, captured_ns)
        except _TruncatedError as error:
            where = "before its first frame" if last is None else f"after {last}"
            message = f"{source.display}: breaks off {where} ({error})"
            raise SourceError(message, reason=error.reason) from error.__cause__
        excerpt.check_begun(source.display)


def _begin_of(container: InputContainer) -> Fraction | None:
    """Return the time at which a recording begins, from which players count; None if unknown."""
    return None if container.start_time is None else Fraction(container.start_time, av.time_base)


def _check_limits(source: Source, stream: VideoStream, *, max_pixels: int) -> None:
    if stream.width * stream.height > max_pixels:
        fault = f"is {stream.width}x{stream.height} pixels, more than max_pixels ({max_pixels}) allows"
        raise SourceError(f"{source.display}: {fault}", reason="not allowed")
    if (rate := float(stream.average_rate or 0)) > MAX_RATE:
        raise SourceError(f"{source.display}: claims {rate:g} frames/s, more than {MAX_RATE}", reason="not allowed")


def count_indexed_frames(container: InputContainer, stream: VideoStream, *, since: int | None = None) -> int:
    """Return the number of frames in the index of an mp4, without those that its edit list cuts; 0 for other formats,
    whose frame counts are guesses of the program that wrote the header. `since`: from this decoding time on."""
    if "mp4" not in container.format.name or not stream.frames:
        return 0
    entries = [entry for entry in stream.index_entries if not entry.is_discard]
    return sum(since is None or entry.timestamp >= since for entry in entries)


def count_video_frames(source: Source, excerpt: Excerpt | None = None) -> int | None:
    """Return the number of frames of an excerpt by the header: a count, or duration x rate; None if unknown.

    Raises SourceError.
    """
    with open_video(source, {}, timeouts_s=(5.0, 5.0)) as (container, stream):
        count, rate = count_indexed_frames(container, stream) or stream.frames, stream.average_rate
        if not count and container.duration and rate:
            count = round(container.duration / av.time_base * rate)
        return (excerpt.count(count, rate) if excerpt and count and rate else count) or None


class _TruncatedError(SourceError):
    """A stream ended before its end."""


def _decode_stream(
    container: InputContainer, stream: VideoStream, *, moved: bool = False
) -> Iterator[av.VideoFrame | None]:
    """Yield frames as decoded, None for a damaged one. Raises _TruncatedError at the end of a truncated stream.

    `moved`: the stream is not at its beginning; the index promises the frames from the first packet on.
    """
    expected, read, failure, truncated = count_indexed_frames(container, stream), 0, None, False
    try:
        for packet in container.demux(stream):
            if moved and packet.size:
                moved = False
                expected = 0 if packet.dts is None else count_indexed_frames(container, stream, since=packet.dts)
            # PyAV loses all frames that the decoder still holds if an error follows, as it does for half a packet. In
            # streams (mpegts, hls, rtsp) the flag means that some part of the packet is missing.
            if packet.is_corrupt and any(name in container.format.name for name in INDEXED_FORMATS):
                truncated = True
            elif packet.size:  # an empty packet would end the decoder
                read += not packet.is_discard
                yield from _decode_packet(stream, packet)
    except av.FFmpegError as error:
        failure = error
    # Frames that the decoder still holds come before the error.
    yield from _decode_packet(stream, None)
    if failure is not None:
        reason, message = explain_error(failure)
        raise _TruncatedError(message, reason=reason) from strip_address(failure)
    if read < expected:
        raise _TruncatedError(f"its index lists {expected} frames")
    if truncated:
        raise _TruncatedError("its last frame is incomplete")


def _decode_packet(stream: VideoStream, packet: av.Packet[VideoStream] | None) -> Iterator[av.VideoFrame | None]:
    try:
        frames = stream.decode(packet)
    except av.FFmpegError:
        yield None
        return
    for frame in frames:
        yield None if frame.is_corrupt else frame


def is_mirrored(frame: av.VideoFrame) -> bool:
    """Return True if the display matrix of a frame mirrors it.

    PyAV then ties the frame and its side data in a reference cycle, which lives until Python's next garbage collection;
    called for every frame of a stream, this would hold 400 MiB of 1080p.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know EXIF, and then reads no other side data either
        return False
    if not isinstance(matrix, SideData):
        return False
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    return bool(a * d < b * c)


def to_upright_bgr(frame: av.VideoFrame, reformatter: VideoReformatter, *, mirrored: bool = False) -> Image:
    """Convert a frame to the image that a player shows: by the stream's color matrix and range, rotated and mirrored.

    The rotation is the angle that PyAV reads from the display matrix; `mirrored` is not part of it. A stream without a
    color matrix gets the one that mpv and VLC choose by size: BT.709 from 1280 wide or above 576 lines, else BT.601.
    The image is a copy, writable and C-contiguous. swscale takes 0.6 ms for 1920x1080 on one core, no more than OpenCV,
    whose conversion knows BT.601 only; more threads gained nothing.
    """
    matrix = None
    if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
        high_definition = frame.width >= 1280 or frame.height > 576
        matrix = Colorspace.ITU709 if high_definition else Colorspace.ITU601
    converted = reformatter.reformat(
        frame, format="bgr24", src_colorspace=matrix, dst_color_range=ColorRange.JPEG, threads=1
    )
    bgr = np.asarray(converted.to_ndarray(), np.uint8)
    upright, rotation = bgr, _ROTATIONS.get(frame.rotation)
    if mirrored:  # the angle is that of the rows: a mirrored image is upside down before the rotation
        upright = np.asarray(cv2.flip(upright, 0), np.uint8)
    if rotation is not None:
        upright = np.asarray(cv2.rotate(upright, rotation), np.uint8)
    if upright is not bgr:
        return upright
    # If nothing had to be converted, this is the decoder's own memory.
    return bgr.copy() if converted is frame else np.ascontiguousarray(bgr)
