"""`write`: writes frames to a video file, H.264, 8 bit 4:2:0, BT.709, at the times of the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError
from stream_seg.files.templates import STREAM
from stream_seg.files.writing import path_validator
from stream_seg.frame import Frame
from stream_seg.stages.base import STRICT, Context, Frames, Traits
from stream_seg.stages.encoder import Encoding, Speed
from stream_seg.stages.growing_file import GrowingFile
from stream_seg.stages.recorder import Recorder
from stream_seg.stages.rotation import KeepGb, Rotation, SegmentMb, SegmentS
from stream_seg.stages.video_file import VideoFile

Preset: TypeAlias = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
]

SUFFIXES = (".mp4", ".mkv")


@dataclass(config=STRICT)
class Write:
    """Write frames to a video file that plays in a browser.

    The first frame is at 0 s and the distances of the others are kept, also at a variable frame rate: exactly in .mp4,
    with ticks of at least 1 us, and to the millisecond in .mkv. A time that does not increase is moved to one tick
    after the last; when the clock of a stream restarts (falls back by more than 1 s, leaps ahead by more than 10 min),
    the file continues without a gap. With `fps` the frames are at its multiples instead: of several in one interval
    the first is written, and one that lasts longer is repeated. An image with an odd side loses its last row or column
    (4:2:0 needs even sides); one of another size than the first is scaled to fit, with black bars. The file has one
    stream; with `{stream}` in its name there is one file per stream. During an outage of a live source the placeholders
    are written; those before the first image are not, since the image determines the size of the file. The file can be
    played while it grows, as NAME.partial.SUFFIX; a crash costs at most its last second. A live one gets its time in
    its name.
    """

    traits = Traits(role="output", images="drawn", argument="a video (.mp4, .mkv)")

    path: Annotated[
        Path,
        AfterValidator(path_validator(*SUFFIXES)),
        Field(description="the file, .mp4 or .mkv; {stream}, {time} and {part} in its name are replaced"),
    ]
    codec: Annotated[Literal["h264"], Field(description="video codec")] = "h264"
    speed: Annotated[
        Speed,
        Field(
            description="fast: 0.6 of the encoder's time, a file up to 1.5 times as large; small: 2.4 times the time, "
            "a file a fifth smaller"
        ),
    ] = "balanced"
    crf: Annotated[
        int | None, Field(ge=1, le=51, description="constant rate factor: 1 is best, 51 is smallest; none: by speed")
    ] = None
    preset: Annotated[
        Preset | None, Field(description="x264 preset; a faster one makes a larger file; none: by speed")
    ] = None
    rate: Annotated[float | None, Field(ge=1, le=240, description="frames/s in a .mkv header; none: measured")] = None
    fps: Annotated[
        float | None,
        Field(ge=0.01, le=1000, description="constant rate, by dropping or repeating frames; none: as they come"),
    ] = None
    threads: Annotated[
        int | None, Field(ge=1, le=64, description="encoder threads; none: by number of cores, at most 4")
    ] = None
    title: Annotated[str | None, Field(description="title in the header of the file")] = None
    segment_s: SegmentS = None
    segment_mb: SegmentMb = None
    keep_gb: KeepGb = None

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one that is no video file."""
        return {"path": text} if "://" not in text and Path(text).suffix.lower() in SUFFIXES else None

    def __post_init__(self) -> None:
        self._context = Context()
        if self.rate is not None and self.path.suffix.lower() == ".mp4":
            raise ValueError("rate is for .mkv; an .mp4 stores the times of its frames only; remove rate")

    def bind(self, context: Context) -> Write:
        """Return the stage with the context of a graph, and with the time or a number in its path where that is due."""
        bound = replace(self, path=self._rotation.bind(self.path, context))
        bound._context = context
        self._require_own_file(list(context.streams()) if context.streams else [])
        return bound

    def __call__(self, frames: Frames) -> Frames:
        streams: dict[str, None] = {}
        with Recorder(self.path, self._begin, rotation=self._rotation, context=self._context) as recorder:
            for frame in frames:
                if frame.signal is None or frame.stream in streams:
                    streams[frame.stream] = None
                    self._require_own_file([*streams])
                    recorder.add(frame)
                yield frame

    @property
    def encoding(self) -> Encoding:
        """Settings of the encoder and the container."""
        return Encoding(self.speed, self.crf, self.preset, self.rate, self.fps, self.threads, self.title)

    @property
    def _rotation(self) -> Rotation:
        return Rotation(self.segment_s, self.segment_mb, self.keep_gb)

    def _begin(self, file: GrowingFile, first: Frame) -> VideoFile:
        return VideoFile(file, self.encoding, first)

    def _require_own_file(self, streams: Sequence[str]) -> None:
        if len(streams) > 1 and STREAM not in self.path.name:
            example = self.path.with_name(f"{self.path.stem}-{STREAM}{self.path.suffix}")
            raise ConfigError(
                f"write: the streams {', '.join(streams)} cannot share {self.path}; "
                f"for one file per stream set path: '{example}'"
            )
