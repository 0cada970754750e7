"""`write`: frames into a video file, H.264, 8 bit 4:2:0, BT.709, with the times that the frames carry."""

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
"""The number of BT.709 in H.264's tables of matrices, primaries and transfer functions alike."""
FINEST_TICK = Fraction(1, 1_000_000)
MATROSKA_TICK = Fraction(1, 1000)
"""All that Matroska can say."""
LONE_RATE = Fraction(30)
"""Frames/s where there is only one: it is seen for 1/30 s."""
LONGEST_STEP_S = 1
"""The last frame lasts as long as the steps before it, at most this: a step may be a pause."""


@dataclass(config=STRICT)
class Write:
    """Write the frames to a video file that plays in a browser.

    The first frame is at 0 s and every other at its own distance from it, so a variable frame rate is kept: exactly in
    .mp4, down to ticks of 1 us, and to the millisecond in .mkv. A time that does not increase is moved to one tick
    after the last; when a stream's clock starts afresh (falls back over 1 s, leaps over 10 min), the times go on from
    where they were. A picture with an odd side loses its last row or column (4:2:0 needs even sides); one whose size
    differs from the first is fitted into that, with black bars. The file holds one stream; `{stream}` in its name makes
    one file for each. A live source's outage is in the file as the card that is shown meanwhile; a card
    before the first picture is left out, since it is the picture that gives the file its size.
    """

    traits = Traits(role="output", images="drawn", argument="a video (.mp4, .mkv)")

    path: Annotated[
        Path,
        AfterValidator(path_validator(*SUFFIXES)),
        Field(description="the file, .mp4 or .mkv; {stream} in its name stands for the stream's name"),
    ]
    codec: Annotated[Literal["h264"], Field(description="the video codec")] = "h264"
    crf: Annotated[int, Field(ge=1, le=51, description="constant rate factor: 1 is best, 51 is smallest")] = 20
    preset: Annotated[Preset, Field(description="the x264 preset: a faster one makes a larger file")] = "veryfast"
    rate: Annotated[
        float | None,
        Field(ge=1, le=240, description="frames/s that an .mkv names, not for .mp4; none: as the first two frames say"),
    ] = None
    threads: Annotated[
        int | None, Field(ge=1, le=64, description="threads of the encoder; none: as many as suit the cores")
    ] = None

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one that is no video file."""
        return {"path": text} if "://" not in text and Path(text).suffix.lower() in SUFFIXES else None

    def __post_init__(self) -> None:
        if self.rate is not None and self.path.suffix.lower() == ".mp4":
            raise ValueError("rate is for .mkv; an .mp4 says nothing but the times of its frames; leave it out")

    def __call__(self, frames: Frames) -> Frames:
        with atomic_files(self.path) as partial_of, ExitStack() as open_videos:
            videos: dict[str, Video] = {}
            for frame in frames:
                if frame.signal is not None and frame.stream not in videos:
                    yield frame
                    continue
                if frame.stream not in videos:
                    self._refuse_another(frame.stream, videos)
                    video = Video(partial_of(frame.stream), settings=self, first=frame)
                    videos[frame.stream] = open_videos.enter_context(closing(video))
                videos[frame.stream].add(frame)
                yield frame

    def _refuse_another(self, stream: str, videos: dict[str, Video]) -> None:
        if videos and STREAM not in self.path.name:
            example = self.path.with_name(f"{self.path.stem}-{STREAM}{self.path.suffix}")
            raise ConfigError(
                f"write: the streams {', '.join(videos)} and {stream} cannot share {self.path}; "
                f"one file for each is path: '{example}'"
            )


class Video:
    """A video file in the making; its size and its ticks are those of the first frame."""

    def __init__(self, partial: Path, *, settings: Write, first: Frame) -> None:
        self._partial, self._settings = partial, settings
        self._size = height, width = even(first.image)
        if not (height and width):
            raise OutputError(
                f"cannot write {settings.path}: H.264 needs two pixels a side, not {first.image.shape[:2]}"
            )
        self._mp4 = partial.suffix.lower() == ".mp4"
        self._clock = FileClock(max(first.time_base, FINEST_TICK) if self._mp4 else MATROSKA_TICK)
        self._reformatter = VideoReformatter()
        self._first: av.VideoFrame | None = None
        self._encoder: tuple[OutputContainer, VideoStream] | None = None

    def add(self, frame: Frame) -> None:
        """Encode a frame; the first is held back, since the rate shows with the second. Raises OutputError."""
        with map_write_errors(self._settings.path):
            picture = self._converted(frame)
            if self._first is None:
                self._first = picture
                return
            container, stream = self._encoder or self._begin(self._first)
            container.mux(stream.encode(picture))

    def close(self) -> None:
        """Encode what has been held back and finish the file. Raises OutputError."""
        with map_write_errors(self._settings.path):
            if self._first is not None:
                container, stream = self._encoder or self._begin(self._first)
                with container:
                    container.mux(stream.encode(None))

    def _converted(self, frame: Frame) -> av.VideoFrame:
        picture = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(fitted(frame.image, self._size), format="bgr24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        picture.time_base = self._clock.tick
        picture.pts, picture.duration = self._clock.place(frame.pts * frame.time_base)
        return picture

    def _begin(self, first: av.VideoFrame) -> tuple[OutputContainer, VideoStream]:
        settings, tick = self._settings, self._clock.tick
        # With the index at its front, a file plays while it still loads.
        container = av.open(str(self._partial), "w", options={"movflags": "+faststart"} if self._mp4 else {})
        rate = Fraction(settings.rate) if settings.rate else self._clock.rate
        options = {"preset": settings.preset, "crf": str(settings.crf)}
        stream = container.add_stream("libx264", rate.limit_denominator(10_000), options, time_base=tick)
        self._encoder = container, stream
        stream.height, stream.width = self._size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = settings.threads or 0
        context = stream.codec_context
        # With B-frames the pictures are stored out of order, and a file's length, the sum of the steps as stored, is
        # wrong where the rate varies. They also cost a third more time here, for the same size.
        context.max_b_frames = 0
        context.flags |= Flags.frame_duration  # heed the duration of the frames, for the sake of the last
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = BT709
        container.mux(stream.encode(first))
        return self._encoder


class FileClock:
    """Times and durations of the frames of a file, in ticks of `tick` seconds, from 0 on."""

    def __init__(self, tick: Fraction) -> None:
        self.tick = tick
        self._clock = StreamClock(leap_s=LEAP_S)
        self._last: int | None = None
        self._step = max(1, round(LONGEST_STEP_S / tick))
        self._interval = max(1, round(1 / (tick * LONE_RATE)))

    @property
    def rate(self) -> Fraction:
        """Frames/s of the usual interval, limited to what an encoder accepts."""
        return min(max(1 / (self._interval * self.tick), Fraction(1)), Fraction(240))

    def place(self, time_s: Fraction) -> tuple[int, int]:
        """Return time and likely duration of the next frame: the smaller of the last two steps, one may be a pause."""
        if self._last is None:
            self._clock.restart(time_s, at_s=0)
        pts = self._clock.place(time_s, self.tick, interval_s=self._interval * self.tick)
        if self._last is not None:
            step = pts - self._last
            self._interval, self._step = min(step, self._step), step
        self._last = pts
        return pts, self._interval


def even(image: Image) -> tuple[int, int]:
    """(height, width), each less one where it is odd."""
    height, width = image.shape[:2]
    return height - height % 2, width - width % 2


def fitted(image: Image, size: tuple[int, int]) -> Image:
    """The picture at size (height, width): cut where it is one pixel over, else scaled, between black bars."""
    height, width = size
    if even(image) == size:
        return image[:height, :width]
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    scaled = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    right, bottom = width - inner[0] - left, height - inner[1] - top
    fit: Image = cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_CONSTANT)  # type: ignore[assignment]
    return fit
