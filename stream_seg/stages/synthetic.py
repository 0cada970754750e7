"""`synthetic`: renders a drive with exact labels and motion, `synth://road`."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator, Mapping
from dataclasses import fields
from fractions import Fraction
from typing import Annotated, Literal
from urllib.parse import parse_qsl

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from stream_seg.datasets.palettes import SYNTHETIC
from stream_seg.errors import ConfigError
from stream_seg.frame import NONE_MISSED, Frame, Truth
from stream_seg.redact import redact_secrets
from stream_seg.schema.validation import describe_error, describe_unknown
from stream_seg.sources.excerpt import Duration
from stream_seg.stages.base import STRICT, Frames, Traits
from stream_seg.synth import Canvas, Move, render

SCENES = ("road",)
DARK = 0.6
"""Brightness of the frames after every second jump of the exposure."""


@dataclass(config=STRICT)
class Synthetic:
    """Render a drive through a town, with its exact labels and motion on request.

    Frame k depends on these fields only, not on earlier frames; its motion is that since the previous frame yielded,
    None after a cut. A paced source that is late skips the frames whose time has passed, all but the last one, and
    counts them in `Frame.missed["late"]`; so does `drop`.
    """

    traits = Traits(role="source", argument="synth://road")

    scene: Annotated[Literal["road"], Field(description="road: a street in a town")] = "road"
    seed: Annotated[int, Field(ge=0, lt=2**32, description="seed of town, weather and traffic")] = 0
    width: Annotated[int, Field(ge=64, le=8192, description="width of the images in pixels")] = 640
    height: Annotated[int, Field(ge=64, le=8192, description="height of the images in pixels")] = 360
    rate: Annotated[float, Field(ge=1, le=1000, description="frames per second")] = 30.0
    frames: Annotated[int | None, Field(ge=1, description="number of frames; none: endless")] = None
    duration_s: Annotated[Duration | None, Field(description="end after so many seconds; none: never")] = None
    paced: Annotated[bool, Field(description="true: in real time, like a camera; false: as fast as possible")] = False
    stream: Annotated[str, Field(min_length=1, description="name of the stream in frames and metrics")] = "synth"
    camera: Annotated[Move, Field(description="camera motion: drive, static, or pan (it stands and turns)")] = "drive"
    shake: Annotated[float, Field(ge=0, le=50, description="camera shake in pixels at a width of 640")] = 1.0
    noise: Annotated[float, Field(ge=0, le=50, description="standard deviation of the noise, of 255 gray levels")] = 2.0
    truth: Annotated[bool, Field(description="true: exact labels and motion, which take half as long again")] = False
    crossing: Annotated[bool, Field(description="true: a van crosses the view nearby again and again")] = False
    cut: Annotated[int | None, Field(ge=2, description="frames from one cut to another town to the next cut")] = None
    exposure: Annotated[int | None, Field(ge=2, description="frames between jumps of exposure to 0.6 and back")] = None
    drop: Annotated[int | None, Field(ge=2, description="of so many frames the last is dropped")] = None

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line INPUT; None for one that does not begin with synth://."""
        return parse_synth(text) if text.startswith("synth:") else None

    @property
    def live(self) -> bool:
        """True for a paced drive: its frames come whether or not they are taken."""
        return self.paced

    def expected_frames(self) -> int | None:
        """Return the number of frames; None for an endless drive."""
        if self.duration_s is None:
            return self.frames
        count = math.ceil(Fraction(str(self.duration_s)) * Fraction(str(self.rate)))
        return count if self.frames is None else min(count, self.frames)

    def __call__(self, frames: Frames) -> Generator[Frame, None, Mapping[str, int]]:
        count, drawing = self.expected_frames(), self._draw(0, 1)  # builds the town, before the clock starts
        start_ns, interval_ns = time.monotonic_ns(), 1e9 / self.rate
        seq, missed = 0, NONE_MISSED
        while True:
            if self.paced:
                time.sleep(max(start_ns + seq * interval_ns - time.monotonic_ns(), 0) / 1e9)
            yield self._frame(seq, drawing, missed)
            due = int((time.monotonic_ns() - start_ns) / interval_ns) if self.paced else 0
            following = max(seq + 1, due if count is None else min(due, count - 1))
            following += self.drop is not None and following % self.drop == self.drop - 1
            skipped = following - seq - 1
            if count is not None and following >= count:
                return {"late": count - seq - 1} if skipped else NONE_MISSED
            missed = {"late": skipped} if skipped else NONE_MISSED
            seq = following
            drawing = self._draw(seq, 1 + skipped)

    def _draw(self, seq: int, back: int) -> Canvas:
        dark = self.exposure is not None and seq // self.exposure % 2 == 1
        return render(
            (self.seed + self._shot(seq)) % 2**32,
            seq,
            self.width,
            self.height,
            rate=self.rate,
            move=self.camera,
            shake=self.shake,
            noise=self.noise,
            back=back,
            crossing=self.crossing,
            light=DARK if dark else 1.0,
        )

    def _shot(self, seq: int) -> int:
        return 0 if self.cut is None else seq // self.cut

    def _frame(self, seq: int, drawing: Canvas, missed: Mapping[str, int]) -> Frame:
        last = seq - 1 - sum(missed.values())
        follows = seq > 0 and self._shot(last) == self._shot(seq)
        truth = Truth(drawing.labels(), SYNTHETIC, drawing.motion() if follows else None) if self.truth else None
        time_base = 1 / Fraction(self.rate).limit_denominator(1001)
        return Frame(self.stream, seq, seq, time_base, time.monotonic_ns(), drawing.image, truth=truth, missed=missed)


KEYS = ("size", *(field.name for field in fields(Synthetic) if field.name not in ("scene", "width", "height")))


def parse_synth(uri: str) -> dict[str, object]:
    """Return the keys of an address such as `synth://road?seed=3&size=1280x720&rate=30&frames=300&paced=1`.

    Raises ConfigError for an unknown scene or key, or an invalid value.
    """
    scheme, _, rest = uri.partition("://")
    scene, _, query = rest.partition("?")
    if scheme != "synth" or scene not in SCENES:
        allowed = ", ".join(f"synth://{name}" for name in SCENES)
        raise ConfigError(f"{redact_secrets(uri)}: no such synthetic scene; allowed: {allowed}")
    keys: dict[str, object] = {"scene": scene}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in KEYS:
            raise ConfigError(f"{uri}: {describe_unknown('key', key, KEYS)}")
        if key == "size":
            size = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
            if size is None:
                raise ConfigError(f"{uri}: size: expected WIDTHxHEIGHT in pixels, such as 1280x720, got {text!r}")
            keys |= {"width": int(size[1]), "height": int(size[2])}
        else:
            keys[key] = text
    try:
        stage = Synthetic(**keys)  # type: ignore[arg-type]  # strings, which pydantic converts
    except ValidationError as error:
        declared: dict[str, FieldInfo] = Synthetic.__pydantic_fields__  # type: ignore[attr-defined]
        raise ConfigError(describe_error(error, declared, where=uri)) from error
    return {name: getattr(stage, name) for name in keys}
