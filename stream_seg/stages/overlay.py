"""`overlay`: the class of every pixel in colour over the picture, with a legend and a line of figures."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.datasets.palettes import PALETTES
from stream_seg.errors import ConfigError
from stream_seg.frame import Frame, Temporal
from stream_seg.ops.draw import Corner, Sprite, figures, legend, outline, stamp, stamp_beside
from stream_seg.per_stream import Recent
from stream_seg.redact import quoted
from stream_seg.stages.base import STRICT, Frames
from stream_seg.types import Classes

BACKGROUND = "background"
"""Of this class nothing is drawn unless `opacities` says so: its colour would only darken the picture."""
SECOND_NS = 1_000_000_000


def _rgb(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return tuple(value)
    raise ValueError(f"{quoted(value)} is no colour; '#rrggbb' or [red, green, blue], 0 to 255 each, is allowed")


Opacity = Annotated[float, Field(ge=0, le=1)]
RGB = Annotated[tuple[int, int, int], BeforeValidator(_rgb)]


class Look(NamedTuple):
    """How a network's classes are drawn: by label, colours uint8 (256, 3) and opacity (256,); the legend's classes."""

    bgr: NDArray[np.uint8]
    opacity: NDArray[np.float32]
    legend: Classes


@dataclass(config=STRICT)
class Overlay:
    """Draw the class of every pixel in colour over the picture, with a legend and a line of figures.

    Draws on the frame's own image where that may be written, else on a copy. A frame without classes gets the figures
    only: frames per second as they arrive here, milliseconds since capture, frames missing so far. On a picture that is
    too small for figures and legend side by side the legend stands below the figures; where it does not fit there
    whole, it is left out.
    """

    opacity: Annotated[Opacity, Field(description="how much of the picture the colours cover, 0 to 1")] = 0.5
    opacities: Annotated[
        dict[str, Opacity],
        Field(description="class: opacity, 0 to 1, instead of `opacity`; background has 0 unless given"),
    ] = field(default_factory=dict)
    colours: Annotated[
        dict[str, RGB], Field(description="class: '#rrggbb' or [red, green, blue], 0 to 255, instead of the palette's")
    ] = field(default_factory=dict)
    palette: Annotated[
        Literal["camvid", "cityscapes", "voc"] | None,
        Field(description="a dataset's colours instead of the network's own"),
    ] = None
    soft: Annotated[bool, Field(description="smooth edges between classes; off: the network's own pixels")] = True
    contours: Annotated[bool, Field(description="also a thin line along the edge of every region")] = False
    legend: Annotated[
        bool | Corner, Field(description="the names of the colours: on (top-right), off, or a corner")
    ] = True
    hud: Annotated[bool, Field(description="the line of figures in the top left corner")] = True

    def __call__(self, frames: Frames) -> Frames:
        from stream_seg.ops.blend import blend  # brings numba: not for a help text

        looks: dict[Classes, Look] = {}
        readings: Recent[Readings] = Recent()
        for frame in frames:
            own = readings.get(frame.stream) or Readings()
            readings.put(frame.stream, own)
            if frame.signal is not None:
                own.count(frame)
                yield frame
                continue
            flags = frame.image.flags
            image = frame.image if flags.writeable and flags.c_contiguous else frame.image.copy(order="C")
            if frame.semantic is not None:
                if frame.semantic.classes not in looks:
                    looks[frame.semantic.classes] = self.look(frame.semantic.classes)
                look, labels = looks[frame.semantic.classes], frame.semantic.labels
                blend(image, labels, look.bgr, look.opacity, soft=self.soft)
                if self.contours:
                    outline(image, labels, look.bgr, drawn=look.opacity > 0)
            line = None
            if self.hud:
                line = own.sprite(frame, time.monotonic_ns())
                stamp(image, line, "top-left")
            if frame.semantic is not None and self.legend and look.legend:
                corner: Corner = "top-right" if self.legend is True else self.legend
                panel = legend(look.legend, image.shape[0])
                if line is None:
                    stamp(image, panel, corner)
                else:
                    stamp_beside(image, panel, corner, line=line)
            yield replace(frame, image=image)

    def look(self, classes: Classes) -> Look:
        """The settings applied to a network's classes. Raises ConfigError where they do not fit."""
        for setting, given in (("opacities", self.opacities), ("colours", self.colours)):
            for name in given:
                classes.index(name, where=f"overlay.{setting}")
        palette = PALETTES[self.palette] if self.palette else classes
        if palette.names != classes.names:
            raise ConfigError(
                f"overlay.palette: {self.palette} has {len(palette)} classes ({', '.join(palette.names)}); "
                f"the network has {len(classes)} ({', '.join(classes.names)}); they must be the same"
            )
        by_name = dict(zip(palette.names, palette.colours, strict=True)) | self.colours
        painted = Classes(classes.names, tuple(by_name.values()))
        opacity = np.zeros(256, np.float32)  # void stays as it is
        opacity[: len(classes)] = [
            self.opacities.get(name, 0.0 if name == BACKGROUND else self.opacity) for name in classes.names
        ]
        named = [i for i in range(len(classes)) if opacity[i] > 0]
        shown = Classes(tuple(painted.names[i] for i in named), tuple(painted.colours[i] for i in named))
        return Look(painted.bgr, opacity, shown)


@plain_dataclass
class Readings:
    """The figures of one stream, shown four times a second so that they can be read."""

    arrivals: list[int] = field(default_factory=list)
    latencies: list[int] = field(default_factory=list)
    last_seq: int | None = None
    dropped: int = 0
    carries: bool = False  # whether classes of key frames were ever carried to other frames
    steps_down: bool = False  # whether a target was ever held by working more cheaply
    shown_ns: int = 0
    height: int = 0
    line: Sprite | None = None

    def count(self, frame: Frame) -> None:
        """Count what is missing before a frame; a card that a source drew has a number too."""
        if self.last_seq is not None:
            self.dropped += max(0, frame.seq - self.last_seq - 1)
        self.last_seq = frame.seq

    def sprite(self, frame: Frame, now_ns: int) -> Sprite:
        """The line of figures at the arrival of a frame."""
        self.count(frame)
        self.latencies.append(now_ns - frame.captured_ns)
        self.arrivals.append(now_ns)
        while len(self.arrivals) > 2 and self.arrivals[0] < now_ns - SECOND_NS:
            del self.arrivals[0]
        if frame.temporal is not None:
            self.carries |= frame.temporal.age > 0
            self.steps_down |= frame.temporal.rung > 0
        height = frame.image.shape[0]
        if self.line is None or height != self.height or now_ns - self.shown_ns >= SECOND_NS // 4:
            self.line, self.height, self.shown_ns = figures(self.items(frame), height), height, now_ns
            self.latencies.clear()
        return self.line

    def items(self, frame: Frame) -> tuple[tuple[str, str, str], ...]:
        """(value, unit, widest usual value) of each figure."""
        span_ns = self.arrivals[-1] - self.arrivals[0]
        fps = f"{(len(self.arrivals) - 1) * SECOND_NS / span_ns:.1f}" if span_ns else "-"
        latency = f"{sum(self.latencies) / len(self.latencies) / 1e6:.0f}"
        items = [(fps, "fps", "00.0"), (latency, "ms", "000"), (str(self.dropped), "dropped", "0")]
        if frame.semantic is not None:
            engine = frame.semantic.engine
            items.append((engine.network, f"{engine.backend} {engine.precision}", ""))
        temporal = frame.temporal or Temporal()
        if self.carries:
            items.append((f"+{temporal.age}" if temporal.age else "key", "frame", "+00"))
        if self.steps_down:
            items.append((str(temporal.rung), "rung", "0"))
        return tuple(items)
