"""Decoded frames of a video: a file, an http or RTSP stream, a V4L2 camera, through FFmpeg."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from stream_seg.errors import SourceError
from stream_seg.frame import PendingImage
from stream_seg.sources.container import WIDEST_PIXEL, allow_allocation, open_video
from stream_seg.sources.convert import Converter, square_size
from stream_seg.sources.decode import EncryptedError, Opened, TruncatedError, count_indexed_frames, decode_frames
from stream_seg.sources.excerpt import NEAR_S, Excerpt, find_key_frame
from stream_seg.sources.file_size import count_missing_bytes
from stream_seg.sources.frame_times import FrameTimes, begin_of
from stream_seg.sources.sample import Sample, sample_frame
from stream_seg.sources.uri import Source
from stream_seg.types import Image

MAX_RATE = 1000
"""Frames per second. No camera delivers more, so a header that claims more is rejected."""
ASPECT_FORMATS = ("mp4", "matroska", "avi", "nut", "mxf", "asf")
"""FFmpeg's names of the containers that have an aspect of their own."""


class DecodedFrame(NamedTuple):
    """An image with its times: `pts`, which a stream may omit, and `duration` in units of `time_base` seconds.

    `sample` is set where the image is pending and its decoded frame could be sampled.
    """

    image: Image | PendingImage
    pts: int | None
    duration: int
    time_base: Fraction
    captured_ns: int
    sample: Sample | None = None


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
    lazy: bool = False,
) -> DecodedFrames:
    """Yield upright BGR frames; None for one that could not be decoded. See `open_video` for the parameters.

    Only frames of `excerpt` are converted, and a recording is decoded from the key frame before its start. With `lazy`
    images are pending: a frame that is dropped costs no conversion.

    Raises SourceError if the stream cannot be opened, is too large or is truncated: then after every frame before the
    break, and with the number of the last one. A frame that the decoder flags as corrupt counts as not decoded: a mask
    of an image that the camera never saw would be a wrong answer that looks right.

    `threads` = 0 is one per core. Each delays the output by a frame, at 30 frames/s on 16 cores by half a second.
    Threads that share a frame (slices) have no such delay, but then FFmpeg does not flag most damaged frames.
    """
    excerpt = excerpt or Excerpt()
    open_decoder = partial(
        _open_decoder,
        source,
        {**options, "max_pixels": str(max_pixels)},
        timeouts_s=timeouts_s,
        max_pixels=max_pixels,
        stay_on_host=stay_on_host,
    )
    target = _find_start(open_decoder, excerpt)
    with open_decoder(threads=threads) as (container, stream):
        times = FrameTimes(container, stream, live=source.live)
        frames = decode_frames(
            container,
            stream,
            live=source.live,
            moved=target is not None,
            since=times.find_tick(excerpt.start_s) if excerpt.start_s else None,
            reopen=partial(open_decoder, threads=1) if source.kind == "file" and threads != 1 else None,
        )
        if target is not None:
            container.seek(target, stream=stream)
        converter, aspect, last = Converter(source.display), _PixelAspect(container, stream), ""
        try:
            for number, frame in enumerate(frames):
                if frame is None:
                    if excerpt.begun:
                        yield None
                    continue
                captured_ns = time.monotonic_ns()
                pts, duration = times.read(frame, captured_ns)
                last = f"frame {number}"
                if not excerpt.whole:
                    since_s = times.since_begin(pts)
                    choice = excerpt.choose(since_s, interval_s=duration * times.time_base)
                    if choice == "end":
                        return
                    if since_s is not None and target is not None:  # the number is not known
                        last = f"{float(since_s):.3f} s"
                    if choice == "skip":
                        continue
                convert = converter.defer if lazy else converter.convert
                image, sample = convert(frame, pixel_aspect=aspect.update()), sample_frame(frame) if lazy else None
                yield DecodedFrame(image, pts, duration, times.time_base, captured_ns, sample)
            if source.kind == "file" and (missing := count_missing_bytes(Path(source.address))):
                raise TruncatedError(f"the last {missing} bytes are missing")
        except TruncatedError as error:
            raise _explain_end(error, source, last) from error.__cause__
        excerpt.check_begun(source.display)


@contextmanager
def _open_decoder(
    source: Source,
    options: Mapping[str, str],
    *,
    timeouts_s: tuple[float, float],
    max_pixels: int,
    stay_on_host: bool,
    threads: int,
) -> Iterator[Opened]:
    """Open a video with a decoder of so many threads, each of which decodes whole frames. Raises SourceError."""
    with open_video(source, options, timeouts_s=timeouts_s, stay_on_host=stay_on_host) as (container, stream):
        _check_limits(source, stream, max_pixels=max_pixels)
        allow_allocation(WIDEST_PIXEL * stream.width * stream.height)
        stream.codec_context.options = {"max_pixels": str(max_pixels)}
        if stream.codec_context.name == "mjpeg":  # half a JPEG would pass for a whole one
            stream.codec_context.options |= {"err_detect": "explode"}
        stream.codec_context.thread_count = threads
        stream.thread_type = "FRAME"
        yield container, stream


def _find_start(open_decoder: Callable[..., AbstractContextManager[Opened]], excerpt: Excerpt) -> int | None:
    """Return where to seek for the start of an excerpt, in ticks of the stream; None to decode from the beginning."""
    if excerpt.start_s <= NEAR_S:
        return None
    with open_decoder(threads=1) as (container, stream):
        begin_s = begin_of(container)
        if begin_s is None:
            return None
        return find_key_frame(container, stream, begin_s + excerpt.start_s, begin_s=begin_s)


def _explain_end(error: TruncatedError, source: Source, last: str) -> SourceError:
    """Return the error of a stream that breaks off after the frame `last`, "" for one without a frame."""
    if not last and isinstance(error, EncryptedError):
        return SourceError(f"{source.display}: is {error}", reason=error.reason)
    where = f"after {last}" if last else "before its first frame"
    return SourceError(f"{source.display}: breaks off {where} ({error})", reason=error.reason)


class _PixelAspect:
    """Width of a video's pixels divided by their height; None if unknown.

    In ASPECT_FORMATS the container's wins, until the decoder's changes in the middle of the stream. Elsewhere the
    decoder's counts, since FFmpeg takes any that it sees while it opens a stream for the container's.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._value, self._codec = stream.sample_aspect_ratio, stream.codec_context
        self._own = any(name in container.format.name for name in ASPECT_FORMATS)
        self._last: Fraction | None = None

    def update(self) -> Fraction | None:
        """Return the aspect of the frame that was just decoded."""
        decoded = self._codec.sample_aspect_ratio
        if decoded is not None and decoded != self._last:
            if self._last is not None or not self._own:
                self._value = decoded
            self._last = decoded
        return self._value


def _check_limits(source: Source, stream: VideoStream, *, max_pixels: int) -> None:
    square = square_size(stream.width, stream.height, stream.sample_aspect_ratio)
    for kind, (width, height) in (("", (stream.width, stream.height)), ("square ", square)):
        if width * height > max_pixels:
            fault = f"is {width}x{height} {kind}pixels, more than max_pixels ({max_pixels}) allows"
            raise SourceError(f"{source.display}: {fault}", reason="not allowed")
    if (rate := float(stream.average_rate or 0)) > MAX_RATE:
        raise SourceError(f"{source.display}: claims {rate:g} frames/s, more than {MAX_RATE}", reason="not allowed")


def count_video_frames(source: Source, excerpt: Excerpt | None = None) -> int | None:
    """Return the number of frames of an excerpt by the header: a count, or duration x rate; None if unknown.

    Raises SourceError.
    """
    with open_video(source, {}, timeouts_s=(5.0, 5.0)) as (container, stream):
        count, rate = count_indexed_frames(container, stream) or stream.frames, stream.average_rate
        if not count and container.duration and rate:
            count = round(container.duration / av.time_base * rate)
        return (excerpt.count(count, rate) if excerpt and count and rate else count) or None
