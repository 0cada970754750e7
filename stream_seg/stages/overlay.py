"""`overlay`: blend class colours into the image and draw a legend and a line of figures."""

from __future__ import annotations

import re
import time
from dataclasses import field, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.frame import Frame, Temporal
from stream_seg.ops import draw
from stream_seg.per_stream import FrameRate, LossCounter, PerStream
from stream_seg.redact import quote_value
from stream_seg.stages.base import STRICT, Frames, Traits
from stream_seg.types import Classes

UPDATE_NS = 250_000_000
"""Interval between updates of the figures."""


def _rgb(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return tuple(value)
    raise ValueError(f"{quote_value(value)} is no colour; expected '#rrggbb' or [red, green, blue], 0 to 255 each")


Opacity = Annotated[float, Field(ge=0, le=1)]
RGB = Annotated[tuple[int, int, int], BeforeValidator(_rgb)]


class Style(NamedTuple):
    """Colours uint8 (256, 3) and opacity (256,) by label, and the classes of the legend."""

    bgr: NDArray[np.uint8]
    opacity: NDArray[np.float32]
    legend: Classes


@dataclass(config=STRICT)
class Overlay:
    """Blend the class colours into the image and draw a legend and a line of figures.

    It draws on the image of the frame if that is writeable, else on a copy. The figures are frames per second,
    milliseconds since capture and the number of frames dropped so far; a frame without classes gets only them. Where
    figures and legend do not fit side by side, the legend goes below the figures; where it does not fit there, it is
    omitted.
    """

    traits = Traits(draws=True)

    opacity: Annotated[Opacity, Field(description="opacity of the colours, 0 to 1")] = 0.5
    classes: Annotated[list[str] | None, Field(min_length=1, description="classes to draw; none: all")] = None
    opacities: Annotated[
        dict[str, Opacity],
        Field(description="class: opacity, 0 to 1, instead of `opacity`; that of background is 0 by default"),
    ] = field(default_factory=dict)
    colours: Annotated[
        dict[str, RGB], Field(description="class: '#rrggbb' or [red, green, blue], 0 to 255, instead of the network's")
    ] = field(default_factory=dict)
    soft: Annotated[bool, Field(description="smooth edges between classes; false: the pixels of the network")] = True
    contours: Annotated[bool, Field(description="draw a thin line along the edge of every region")] = False
    legend: Annotated[
        bool | draw.Corner, Field(description="draw the class names: true (top-right), false, or a corner")
    ] = True
    hud: Annotated[bool, Field(description="draw the line of figures in the top left corner")] = True

    def __call__(self, frames: Frames) -> Frames:
        from stream_seg.ops.blend import blend  # imports numba: too slow for a help text

        styles: dict[Classes, Style] = {}
        figures: PerStream[StreamFigures] = PerStream()
        for frame in frames:
            stream_figures = figures.get(frame.stream) or StreamFigures()
            figures.put(frame.stream, stream_figures)
            stream_figures.losses.add(frame.seq)  # a placeholder frame is not lost
            if frame.signal is not None:
                yield frame
                continue
            flags = frame.image.flags
            image = frame.image if flags.writeable and flags.c_contiguous else frame.image.copy(order="C")
            if frame.semantic is not None:
                classes, labels = frame.semantic.classes, frame.semantic.labels
                if classes not in styles:
                    styles[classes] = self.style(classes)
                style = styles[classes]
                blend(image, labels, style.bgr, style.opacity, soft=self.soft)
                if self.contours:
                    draw.draw_outlines(image, labels, style.bgr, visible=style.opacity > 0)
            line = None
            if self.hud:
                line = stream_figures.render(frame, time.monotonic_ns())
                draw.draw_sprite(image, line, "top-left")
            if frame.semantic is not None and self.legend and style.legend:
                corner: draw.Corner = "top-right" if self.legend is True else self.legend
                panel = draw.render_legend(style.legend, image.shape[0])
                if line is None:
                    draw.draw_sprite(image, panel, corner)
                else:
                    draw.draw_sprite_beside(image, panel, corner, line=line)
            yield replace(frame, image=image)

    def style(self, classes: Classes) -> Style:
        """Return the colours and opacities of a network's classes. Raises ConfigError where the settings do not fit."""
        for setting, names in (("opacities", self.opacities), ("colours", self.colours)):
            for name in names:
                classes.index(name, where=f"overlay.{setting}")
        by_name = dict(zip(classes.names, classes.colours, strict=True)) | self.colours
        coloured = Classes(classes.names, tuple(by_name.values()))
        named = dict.fromkeys(self.classes or (), self.opacity)  # background is drawn if it is named
        opacity = draw.opacity_table(classes, self.opacity, {**named, **self.opacities})
        opacity[~classes.select(self.classes, where="overlay.classes")] = 0
        labels = [label for label in range(len(classes)) if opacity[label] > 0]
        legend = Classes(tuple(coloured.names[i] for i in labels), tuple(coloured.colours[i] for i in labels))
        return Style(coloured.bgr, opacity, legend)


class StreamFigures:
    """The figures of one stream, updated four times a second so that they can be read."""

    def __init__(self) -> None:
        self._rate = FrameRate(window_s=1.0)
        self.losses = LossCounter()
        self._latencies_ns: list[int] = []
        self._shows_age = False  # labels were once propagated from a key frame
        self._shows_quality = False  # the quality level was once lowered
        self._updated_ns = 0
        self._height = 0
        self._line: draw.Sprite | None = None

    def render(self, frame: Frame, now_ns: int) -> draw.Sprite:
        """Return the line of figures for an image that arrives at `now_ns`."""
        self._rate.add(now_ns)
        self._latencies_ns.append(now_ns - frame.captured_ns)
        if frame.temporal is not None:
            self._shows_age |= frame.temporal.age > 0
            self._shows_quality |= frame.temporal.quality_level > 0
        height = frame.image.shape[0]
        if self._line is not None and height == self._height and now_ns - self._updated_ns < UPDATE_NS:
            return self._line
        fps = self._rate.fps(now_ns)
        latency_ms = sum(self._latencies_ns) / len(self._latencies_ns) / 1e6
        items = [
            (f"{fps:.1f}" if fps else "-", "fps", "00.0"),
            (f"{latency_ms:.0f}", "ms", "000"),
            (str(self.losses.lost), "dropped", "0"),
        ]
        if frame.semantic is not None:
            engine = frame.semantic.engine
            items.append((engine.network, f"{engine.backend} {engine.precision}", ""))
        temporal = frame.temporal or Temporal()
        if self._shows_age:
            items.append((f"+{temporal.age}" if temporal.age else "key", "frame", "+00"))
        if self._shows_quality:
            items.append((str(temporal.quality_level), "quality level", "0"))
        self._line = draw.render_figures(tuple(items), height)
        self._height, self._updated_ns = height, now_ns
        self._latencies_ns.clear()
        return self._line
