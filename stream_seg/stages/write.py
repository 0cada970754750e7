"""`write`: writes frames to a video file, H.264, 8 bit 4:2:0, BT.709, at the times of the frames."""

from __future__ import annotations

from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import av
import cv2
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError, OutputError
from stream_seg.files import STREAM, atomic_files, map_write_errors, path_validator
from stream_seg.frame import Frame
from stream_seg.sources.timeline import LEAP_S, StreamClock
from stream_seg.stages.base import STRICT, Frames, Traits
from stream_seg.types import Image

Preset: TypeAlias = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
]

SUFFIXES = (".mp4", ".mkv")
BT709 = 1
"""Number of BT.709 in H.264's tables of matrices, of primaries and of transfer functions."""
FINEST_TICK, MATROSKA_TICK = Fraction(1, 1_000_000), Fraction(1, 1000)
"""Seconds: the finest resolution of times in .mp4, and that of .mkv."""
SINGLE_FRAME_RATE = Fraction(30)
"""Frames/s of a file with one frame, which lasts 1/30 s."""
LONGEST_STEP_S = 1
"""Limit of the duration of the last frame, which is that of the steps before it: a step may be a pause."""


@dataclass(config=STRICT)
class Write:
    """Write frames to a video file that plays in a browser.

    The first frame is at 0 s and the distances of the others are kept, also at a variable frame rate: exactly in .mp4,
    with ticks of at least 1 us, and to the millisecond in .mkv. A time that does not increase is moved to one tick
    after the last; when the clock of a stream restarts (falls back by more than 1 s, leaps ahead by more than 10 min),
    the file continues without a gap. An image with an odd side loses its last row or column (4:2:0 needs even sides);
    one of another size than the first is scaled to fit, with black bars. The file has one stream; with `{stream}` in
    its name there is one file per stream. During an outage of a live source the placeholders are written; those before
    the first image are not, since the image determines the size of the file.
    """

    traits = Traits(role="output", images="drawn", argument="a video (.mp4, .mkv)")

    path: Annotated[
        Path,
        AfterValidator(path_validator(*SUFFIXES)),
        Field(description="the file, .mp4 or .mkv; {stream} in its name is replaced by the name of the stream"),
    ]
    codec: Annotated[Literal["h264"], Field(description="video codec")] = "h264"
    crf: Annotated[int, Field(ge=1, le=51, description="constant rate factor: 1 is best, 51 is smallest")] = 20
    preset: Annotated[Preset, Field(description="x264 preset; a faster one makes a larger file")] = "veryfast"
    rate: Annotated[float | None, Field(ge=1, le=240, description="frames/s in a .mkv header; none: measured")] = None
    threads: Annotated[int | None, Field(ge=1, le=64, description="encoder threads; none: by number of cores")] = None
    title: Annotated[str | None, Field(description="title in the header of the file")] = None

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one that is no video file."""
        return {"path": text} if "://" not in text and Path(text).suffix.lower() in SUFFIXES else None

    def __post_init__(self) -> None:
        if self.rate is not None and self.path.suffix.lower() == ".mp4":
            raise ValueError("rate is for .mkv; an .mp4 stores the times of its frames only; remove rate")

    def __call__(self, frames: Frames) -> Frames:
        with atomic_files(self.path) as partial_of, ExitStack() as open_videos:
            videos: dict[str, Video] = {}
            for frame in frames:
                if frame.stream not in videos and frame.signal is None:
                    self._check_shared(frame.stream, videos)
                    video = Video(partial_of(frame.stream), settings=self, first=frame)
                    videos[frame.stream] = open_videos.enter_context(closing(video))
                if frame.stream in videos:
                    videos[frame.stream].add(frame)
                yield frame

    def _check_shared(self, stream: str, videos: dict[str, Video]) -> None:
        if videos and STREAM not in self.path.name:
            example = self.path.with_name(f"{self.path.stem}-{STREAM}{self.path.suffix}")
            raise ConfigError(
                f"write: the streams {', '.join(videos)} and {stream} cannot share {self.path}; "
                f"for one file per stream set path: '{example}'"
            )


class Video:
    """A video file that is being written, with the size and the ticks of its first frame."""

    def __init__(self, partial: Path, *, settings: Write, first: Frame) -> None:
        self._partial, self._settings = partial, settings
        self._size = height, width = even_size(first.image)
        if not (height and width):
            raise OutputError(
                f"cannot write {settings.path}: H.264 needs at least 2 pixels a side, not {first.image.shape[:2]}"
            )
        self._mp4 = partial.suffix.lower() == ".mp4"
        self._clock = FileClock(max(first.time_base, FINEST_TICK) if self._mp4 else MATROSKA_TICK)
        self._reformatter = VideoReformatter()
        self._first: av.VideoFrame | None = None
        self._encoder: tuple[OutputContainer, VideoStream] | None = None

    def add(self, frame: Frame) -> None:
        """Encode a frame; the first is delayed, since the second determines the rate. Raises OutputError."""
        with map_write_errors(self._settings.path):
            converted = self._convert(frame)
            if self._first is None:
                self._first = converted
                return
            container, stream = self._encoder or self._begin(self._first)
            container.mux(stream.encode(converted))

    def close(self) -> None:
        """Encode the delayed frames and finish the file. Raises OutputError."""
        with map_write_errors(self._settings.path):
            if self._first is not None:
                container, stream = self._encoder or self._begin(self._first)
                with container:
                    container.mux(stream.encode(None))

    def _convert(self, frame: Frame) -> av.VideoFrame:
        converted = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(fit_image(frame.image, self._size), format="bgr24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        converted.time_base = self._clock.tick
        converted.pts, converted.duration = self._clock.place(frame.pts * frame.time_base)
        return converted

    def _begin(self, first: av.VideoFrame) -> tuple[OutputContainer, VideoStream]:
        settings, tick = self._settings, self._clock.tick
        # With the index at the front, a file plays while it is still loading.
        container = av.open(str(self._partial), "w", options={"movflags": "+faststart"} if self._mp4 else {})
        if settings.title:
            container.metadata["title"] = settings.title
        # By the first two frames, within what an encoder accepts.
        usual_rate = min(max(1 / (self._clock.interval * tick), Fraction(1)), Fraction(240))
        rate = Fraction(settings.rate) if settings.rate else usual_rate
        options = {"preset": settings.preset, "crf": str(settings.crf)}
        stream = container.add_stream("libx264", rate.limit_denominator(10_000), options, time_base=tick)
        self._encoder = container, stream
        stream.height, stream.width = self._size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = settings.threads or 0
        context = stream.codec_context
        # With B-frames the frames are stored out of order, and the duration of the file, the sum of the stored steps,
        # is wrong if the rate varies. They also take a third more time here, for the same size.
        context.max_b_frames = 0
        context.flags |= Flags.frame_duration  # use the durations of the frames, for the last one
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = BT709
        container.mux(stream.encode(first))
        return self._encoder


class FileClock:
    """Times, durations and usual interval of the frames of a file, in ticks of `tick` seconds, starting at 0."""

    def __init__(self, tick: Fraction) -> None:
        self.tick, self._clock, self._last = tick, StreamClock(leap_s=LEAP_S), 0
        self._step = max(1, round(LONGEST_STEP_S / tick))
        self.interval = max(1, round(1 / (tick * SINGLE_FRAME_RATE)))

    def place(self, time_s: Fraction) -> tuple[int, int]:
        """Return time and likely duration of the next frame: the smaller of the last two steps, one may be a pause."""
        first = self._clock.last_s is None
        if first:
            self._clock.restart(time_s, at_s=0)
        pts = self._clock.place(time_s, self.tick, interval_s=self.interval * self.tick)
        if not first:
            self.interval, self._step = min(pts - self._last, self._step), pts - self._last
        self._last = pts
        return pts, self.interval


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
