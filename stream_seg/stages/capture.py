"""`capture`: frames of a file, pictures, a camera or a stream."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError, SourceError
from stream_seg.frame import NONE_MISSED, Frame
from stream_seg.sources.image_header import MAX_PIXELS
from stream_seg.sources.images import image_pictures, picture_files
from stream_seg.sources.live import Patience, supply
from stream_seg.sources.live_frames import LiveFrames
from stream_seg.sources.picture import Pictures
from stream_seg.sources.reader import paced
from stream_seg.sources.timeline import StreamClock
from stream_seg.sources.uri import Source, parse, with_password
from stream_seg.sources.video import expected_video_frames, video_pictures
from stream_seg.stages.base import STRICT, Context, Frames, Traits

log = logging.getLogger(__name__)

PICTURES_PER_SECOND = 25.0
"""Of pictures that come without a rate."""
ASKED = {"rate": ("pictures and cameras", ("images", "camera")), "size": ("cameras", ("camera",))}
"""Keys that say nothing to other kinds of source."""


@dataclass(config=STRICT)
class Capture:
    """Read a video file, pictures, a camera, RTSP or http: upright BGR frames with the timing of the source.

    A recording drops nothing. A picture that cannot be decoded is counted in `Frame.missed` of the next one as
    `decode_error`; those after the last frame in the value of the generator. Raises SourceError, also where the source
    breaks off, then after every frame before the break.

    A live source is opened again and again while it is away, and gives cards meanwhile, twice a second
    (`Frame.signal`). Its decoded pictures that nobody takes in time are dropped, the oldest first, as `late`.
    """

    traits = Traits(
        role="source",
        argument="a video file, a folder or glob of images, /dev/videoN or a camera number, rtsp://, http(s)://",
    )

    uri: Annotated[
        str,
        Field(
            min_length=1,
            coerce_numbers_to_str=True,
            description="file, picture, folder or glob of pictures, /dev/videoN or a camera's number, rtsp(s)://, http(s)://",
        ),
    ]
    stream: Annotated[str, Field(min_length=1, description="name of the stream in frames and metrics")] = "capture"
    frames: Annotated[int | None, Field(ge=1, description="stop after so many frames")] = None
    rate: Annotated[
        float | None, Field(ge=0.01, le=1000, description="frames per second: of pictures (25), asked of a camera")
    ] = None
    size: Annotated[
        str | None, Field(pattern=r"^[1-9]\d*x[1-9]\d*$", description="pixels asked of a camera, such as 1280x720")
    ] = None
    transport: Annotated[Literal["tcp", "udp"], Field(description="what RTSP sends pictures over")] = "tcp"
    open_timeout_s: Annotated[
        float, Field(gt=0, le=3600, description="seconds to wait for an answer, and again for the stream's header")
    ] = 5.0
    read_timeout_s: Annotated[float, Field(gt=0, le=3600, description="seconds to wait for the next data")] = 5.0
    reconnect: Annotated[
        bool | None,
        Field(
            description="open again what is away; none: rtsp and live http always, a camera beside other sources too; "
            "a camera alone or a loop once it was there, or where it was added to a running graph"
        ),
    ] = None
    loop: Annotated[bool, Field(description="play a file over and over at its own pace, as if it were live")] = False
    stall_s: Annotated[
        float, Field(gt=0, le=3600, description="live: seconds without data until it is opened anew")
    ] = 3.0
    frozen_s: Annotated[
        float, Field(ge=0, le=3600, description="live: seconds of the same picture until it is called frozen; 0: never")
    ] = 5.0
    password_file: Annotated[
        Path | None, Field(description="holds the password of the user that the address names")
    ] = None
    max_pixels: Annotated[
        int, Field(ge=1, description="refuse a picture or video with more pixels, before decoding it")
    ] = MAX_PIXELS
    threads: Annotated[int, Field(ge=0, le=64, description="threads that decode; 0 is one per core")] = 0

    def __post_init__(self) -> None:
        self._context = Context()

    def __call__(self, _: Frames) -> Generator[Frame, None, Mapping[str, int]]:
        source = self.source()
        self._warn(source)
        if self.live and self.reconnect is not False:
            return (yield from self._lasting(source))
        seq, count, missed, clock, interval = -1, 0, 0, StreamClock(), 1
        with closing(self._pictures(source)) as pictures:
            for seq, picture in enumerate(pictures):
                if picture is None:
                    missed += 1
                    continue
                tick = picture.time_base
                time_s = None if picture.pts is None else picture.pts * tick
                pts = clock.place(time_s, tick, interval_s=interval * (1 + missed) * tick)
                interval = max(1, picture.duration)
                lost = MappingProxyType({"decode_error": missed}) if missed else NONE_MISSED
                yield Frame(self.stream, seq, pts, tick, picture.captured_ns, picture.image, missed=lost)
                count, missed = count + 1, 0
                if count == self.frames:
                    return NONE_MISSED
        if count == 0:
            raise SourceError(f"{source.shown}: no picture in it can be decoded ({seq + 1} tried)")
        return {"decode_error": missed} if missed else NONE_MISSED  # no frame is left to carry the count

    @property
    def live(self) -> bool:
        """Whether its frames come whether or not they are taken."""
        return self.loop or parse(self.uri).live

    @classmethod
    def argument(cls, text: str) -> dict[str, object]:
        """Return the keys for a command-line INPUT. Raises ConfigError for one that is no source."""
        parse(text)
        return {"uri": text}

    def bind(self, context: Context) -> Capture:
        """Return the source with the context of a graph, and with `reconnect` decided.

        Beside other sources a live one is waited for from the start; a loop only in a running graph: at the start, a
        missing file is a mistyped name.
        """
        waits = context.other_sources and self.reconnect is None and self.live and (context.running or not self.loop)
        bound = replace(self, reconnect=True if waits else self.reconnect)
        bound._context = context
        return bound

    def expected_frames(self) -> int | None:
        """Return the number of frames of a recording, from its header. None: unknown, live, or on a network.

        Raises SourceError as reading the recording would.
        """
        source = parse(self.uri)
        if self.loop or source.kind not in ("images", "file"):
            return self.frames
        count = len(picture_files(source)) if source.kind == "images" else expected_video_frames(source)
        return min((number for number in (count, self.frames) if number is not None), default=None)

    def source(self) -> Source:
        """What is opened, with its password. Raises ConfigError."""
        source = parse(self.uri)
        if self.loop and source.kind not in ("file", "images"):
            raise ConfigError(f"{source.shown}: only a file or pictures can be played in a loop")
        return source if self.password_file is None else with_password(source, self.password_file)

    def _warn(self, source: Source) -> None:
        for key, (those, kinds) in ASKED.items():
            if getattr(self, key) is not None and source.kind not in (*kinds, "synth"):
                log.warning("capture.%s: is for %s, and changes nothing about %s", key, those, source.shown)

    def _lasting(self, source: Source) -> Generator[Frame, None, Mapping[str, int]]:
        patience = Patience(2 * self.open_timeout_s + 1, self.stall_s, self.frozen_s or None)
        must_begin = self.reconnect is None and source.kind in ("camera", "file", "images")
        make = partial(paced, partial(self._pictures, source)) if self.loop else partial(self._pictures, source)
        live_frames, count = LiveFrames(self.stream), 0
        with closing(supply(make, stream=self.stream, patience=patience, must_begin=must_begin)) as news:
            for item in news:
                yield live_frames.frame(item)
                count += item.signal is None
                if count == self.frames:
                    break
        return NONE_MISSED

    def _pictures(self, source: Source) -> Pictures:
        if source.kind == "synth":
            raise ConfigError(f"{source.shown}: is drawn by the stage synthetic, not read by capture")
        if source.kind == "images":
            return image_pictures(source, rate=self.rate or PICTURES_PER_SECOND, max_pixels=self.max_pixels)
        options: dict[str, str] = {}
        if source.kind == "rtsp":
            # Without the second FFmpeg waits a second for a frame rate that nobody asks for.
            options |= {"rtsp_transport": self.transport, "fpsprobesize": "0"}
        if source.kind == "camera":
            asked = {"framerate": self.rate, "video_size": self.size}
            options |= {name: str(value) for name, value in asked.items() if value is not None}
        lasts = self.live and self.reconnect is not False
        read_timeout_s = min(self.read_timeout_s, self.stall_s) if lasts else self.read_timeout_s
        timeouts_s = (self.open_timeout_s, read_timeout_s)
        return video_pictures(
            source,
            options,
            timeouts_s=timeouts_s,
            max_pixels=self.max_pixels,
            threads=self.threads,
            stay_on_host=self._context.restricted,
        )
