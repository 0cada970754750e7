"""`capture`: reads frames from a file, images, a camera or a stream."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from pydantic import Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError, SourceError
from stream_seg.frame import NONE_MISSED, Frame
from stream_seg.sources.excerpt import Duration, Excerpt, Start
from stream_seg.sources.images import MAX_PIXELS, decode_image_files, image_interval, list_image_files
from stream_seg.sources.live import Timeouts, draw_live_frames, follow_source
from stream_seg.sources.reader import play_in_loop
from stream_seg.sources.timeline import StreamClock
from stream_seg.sources.uri import Source, add_password, parse_source
from stream_seg.sources.video import DecodedFrames, count_video_frames, decode_video
from stream_seg.stages.base import STRICT, Context, Frames, Traits

LOG = logging.getLogger(__name__)

ADDRESS = "a video file, an image, a folder or glob of images, /dev/videoN or a camera number, rtsp(s)://, http(s)://"
RECONNECT = (
    "reopen a source that disconnects; none: rtsp and live http always, a camera beside other sources too; "
    "a camera alone or a loop after its first frame, or if added to a running graph"
)
THREADS = "decoder threads; 0: one per core for a recording, one for a live source, which each more delays by a frame"
IMAGE_RATE = 25.0
"""Default frames/s of image files."""
PIXELS = r"^[1-9]\d*x[1-9]\d*$"
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]
LIMITED_KEYS = {"rate": ("image files and cameras", ("images", "camera")), "size": ("cameras", ("camera",))}
"""Keys that have no effect on other kinds of source."""


@dataclass(config=STRICT)
class Capture:
    """Read a video file, images, a camera, RTSP or http as upright BGR frames with the timing of the source.

    A recording drops no frame. A frame that cannot be decoded is counted as `decode_error` in `Frame.missed` of the
    next one; after the last frame, in the value of the generator. Raises SourceError if the source cannot be read; if
    it is truncated, after every frame before the break.

    A live source that disconnects is opened again and again. Meanwhile it yields a placeholder twice a second
    (`Frame.signal`). Of its decoded frames that are not taken in time the oldest are dropped, counted as `late`.
    """

    traits = Traits(role="source", argument=ADDRESS)

    uri: Annotated[str, Field(min_length=1, coerce_numbers_to_str=True, description=ADDRESS)]
    stream: Annotated[str, Field(min_length=1, description="name of the stream in frames and metrics")] = "capture"
    frames: Annotated[int | None, Field(ge=1, description="stop after so many frames")] = None
    rate: Annotated[float | None, Field(ge=0.01, le=1000, description="frames/s of images (25) or of a camera")] = None
    size: Annotated[str | None, Field(pattern=PIXELS, description="pixels requested from a camera: 1280x720")] = None
    transport: Annotated[Literal["tcp", "udp"], Field(description="transport protocol of RTSP")] = "tcp"
    open_timeout_s: Annotated[Seconds, Field(description="seconds to wait for an answer, then for the header")] = 5.0
    read_timeout_s: Annotated[Seconds, Field(description="seconds to wait for the next data")] = 5.0
    reconnect: Annotated[bool | None, Field(description=RECONNECT)] = None
    start_s: Annotated[Start, Field(description="recordings: begin at this time: seconds or [HH:]MM:SS")] = 0.0
    duration_s: Annotated[Duration | None, Field(description="end after so many seconds of video; none: never")] = None
    fps: Annotated[float | None, Field(ge=0.01, le=1000, description="drop frames above so many per second")] = None
    loop: Annotated[
        bool, Field(description="play a file, or its part, over and over at its own pace, as if it were live")
    ] = False
    stall_s: Annotated[Seconds, Field(description="live: seconds without data after which it is reopened")] = 3.0
    frozen_s: Annotated[
        float, Field(ge=0, le=3600, description="live: seconds of an unchanged image that count as frozen; 0: never")
    ] = 5.0
    password_file: Annotated[Path | None, Field(description="file with the password of the user in the address")] = None
    max_pixels: Annotated[int, Field(ge=1, description="reject larger images and videos before decoding")] = MAX_PIXELS
    threads: Annotated[int, Field(ge=0, le=64, description=THREADS)] = 0

    def __post_init__(self) -> None:
        self._context = Context()

    def __call__(self, _: Frames) -> Generator[Frame, None, Mapping[str, int]]:
        source = self.parse_source()
        for key, (label, kinds) in LIMITED_KEYS.items():
            if getattr(self, key) is not None and source.kind not in (*kinds, "synth"):
                LOG.warning("capture.%s: applies to %s only, not to %s", key, label, source.display)
        if self._reconnects:
            return (yield from self._live_frames(source))
        seq, count, missed, clock, interval = -1, 0, 0, StreamClock(), 1
        read_s = 0.0 if source.kind in ("file", "images") else self.read_timeout_s
        self._context.busy(f"opening {source.display}", within_s=2 * self.open_timeout_s + read_s + self.start_s)
        with closing(self._decode(source)) as frames:
            for seq, frame in enumerate(frames):
                if frame is None:
                    missed += 1
                    self._context.busy("skipping damaged frames", within_s=read_s)
                    continue
                tick = frame.time_base
                time_s = None if frame.pts is None else frame.pts * tick
                pts = clock.place(time_s, tick, interval_s=interval * (1 + missed) * tick)
                interval = max(1, frame.duration)
                lost = MappingProxyType({"decode_error": missed}) if missed else NONE_MISSED
                yield Frame(self.stream, seq, pts, tick, frame.captured_ns, frame.image, missed=lost)
                self._context.busy(f"reading after frame {self.stream}:{seq}", within_s=read_s)
                count, missed = count + 1, 0
                if count == self.frames:
                    return NONE_MISSED
        if count == 0:
            raise SourceError(f"{source.display}: no frame can be decoded ({seq + 1} tried)")
        return {"decode_error": missed} if missed else NONE_MISSED  # no frame is left to carry the count

    def location(self) -> Source:
        """Return the parsed address. Raises ConfigError for one that is no source."""
        return parse_source(self.uri)

    @property
    def live(self) -> bool:
        """True if frames come whether or not they are taken."""
        return self.loop or self.location().live

    @property
    def _reconnects(self) -> bool:
        return self.live and self.reconnect is not False

    @classmethod
    def argument(cls, text: str) -> dict[str, object]:
        """Return the keys for a command-line INPUT. Raises ConfigError for one that is no source."""
        parse_source(text)
        return {"uri": text}

    def bind(self, context: Context) -> Capture:
        """Return the source with the context of a graph, and with `reconnect` decided.

        Beside other sources a live one is waited for from the start; a loop only in a running graph: at the start, a
        missing file is a mistyped name. Raises ConfigError for a start in a live source.
        """
        if self.start_s and self.location().live:
            raise ConfigError(
                f"{context.name}.start_s: {self.location().display} is live, it starts now; remove start_s"
            )
        waits = context.other_sources and self.reconnect is None and self.live and (context.running or not self.loop)
        bound = replace(self, reconnect=True if waits else self.reconnect)
        bound._context = context
        return bound

    def expected_frames(self) -> int | None:
        """Return the number of frames of a recording, from its header; None if unknown, live or on a network. Raises
        SourceError as reading it would."""
        source = parse_source(self.uri)
        if self.loop or source.kind not in ("images", "file"):
            return self.frames
        count: int | None
        if source.kind == "images":
            rate = 1 / image_interval(self.rate or IMAGE_RATE)
            count = self._excerpt(source).count(len(list_image_files(source)), rate)
        else:
            count = count_video_frames(source, self._excerpt(source))
        return min((number for number in (count, self.frames) if number is not None), default=None)

    def parse_source(self) -> Source:
        """Return the source to open, with its password. Raises ConfigError."""
        source = parse_source(self.uri)
        if self.loop and source.kind not in ("file", "images"):
            raise ConfigError(f"{source.display}: only a file or images can be played in a loop")
        return source if self.password_file is None else add_password(source, self.password_file)

    def _live_frames(self, source: Source) -> Generator[Frame, None, Mapping[str, int]]:
        timeouts = Timeouts(2 * self.open_timeout_s + 1, self.stall_s, self.frozen_s or None)
        fail_at_start = self.reconnect is None and source.kind in ("camera", "file", "images")
        make = partial(self._decode, source)
        if self.loop:
            make = partial(play_in_loop, make)
        count = 0
        begin_s: float | None = None
        updates = follow_source(
            make, stream=self.stream, timeouts=timeouts, fail_at_start=fail_at_start, note=self._context.note
        )
        with closing(updates):
            for frame in draw_live_frames(updates, self.stream):
                if begin_s is None and frame.signal is None:
                    begin_s = frame.time_s
                if begin_s is not None and source.live and frame.time_s >= begin_s + (self.duration_s or math.inf):
                    break
                yield frame
                count += frame.signal is None
                if count == self.frames:
                    break
        return NONE_MISSED

    def _decode(self, source: Source) -> DecodedFrames:
        if source.kind == "synth":
            raise ConfigError(f"{source.display}: is drawn by the stage synthetic, not read by capture")
        if source.kind == "images":
            rate = self.rate or IMAGE_RATE
            return decode_image_files(source, rate=rate, max_pixels=self.max_pixels, excerpt=self._excerpt(source))
        options: dict[str, str] = {}
        if source.kind == "rtsp":
            # Without fpsprobesize FFmpeg waits a second to estimate a frame rate that is not used; without
            # allowed_media_types it also sets up the sound and metadata of a camera, and waits for their first packets.
            options |= {"rtsp_transport": self.transport, "fpsprobesize": "0", "allowed_media_types": "video"}
        if source.kind == "camera":
            requested = {"framerate": self.rate, "video_size": self.size}
            options |= {name: str(value) for name, value in requested.items() if value is not None}
        read_timeout_s = min(self.read_timeout_s, self.stall_s) if self._reconnects else self.read_timeout_s
        return decode_video(
            source,
            options,
            timeouts_s=(self.open_timeout_s, read_timeout_s),
            max_pixels=self.max_pixels,
            threads=self.threads or int(self.live),  # of a live source each thread delays the output by a frame
            stay_on_host=self._context.restricted,
            excerpt=self._excerpt(source),
            lazy=self.live,
        )

    def _excerpt(self, source: Source) -> Excerpt:
        """Return the part of a recording to read; of a live source, only the limit of its frame rate."""
        return Excerpt(fps=self.fps) if source.live else Excerpt(self.start_s, self.duration_s, self.fps)
