"""Draw the legend, the line of figures and the outlines of regions on an image.

Panels are rendered once into a sprite, which is drawn on every frame. Sizes are relative to the image's height.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.types import Classes, Image, Labels

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
BGR = tuple[int, int, int]

BACKGROUND = "background"
FONT = cv2.FONT_HERSHEY_SIMPLEX
SPECIMEN = "pedestrian 0123456789"
"""Text whose width sets the font's scale: OpenCV 4 and 5 draw different letters under the same name."""
PANEL: BGR = (28, 23, 20)
PANEL_OPACITY = 0.68
WHITE: BGR = (245, 245, 245)
GREY: BGR = (178, 174, 170)


@dataclass(frozen=True)
class Sprite:
    """A translucent image to draw: image * keep / 255 + ink. Both uint8 (h, w, 3)."""

    ink: NDArray[np.uint8]
    keep: NDArray[np.uint8]


class Measures:
    """Sizes in pixels of text and panels on an image of this height: text is 1/50 of it, but always readable.

    `text` is the size of text, of which a capital letter is three quarters, and the margin around panels; `line` the
    distance between lines of text, and the height of a panel of one line without its `padding`, which is the distance
    between its edge and its contents.
    """

    def __init__(self, height: int) -> None:
        self.text = max(11, round(height / 50))
        self.line, self.padding = round(self.text * 1.55), round(self.text * 0.6)
        self.stroke = max(1, round(self.text / 22))
        (width, _), _ = cv2.getTextSize(SPECIMEN, FONT, 1.0, 1)
        self.font_scale = 11.8 * self.text / width

    def width(self, text: str) -> int:
        """Return the width of a text."""
        return int(cv2.getTextSize(text, FONT, self.font_scale, self.stroke)[0][0])


class Panel:
    """A dark panel with round corners to paint on, in floating point."""

    def __init__(self, height: int, width: int, radius: int) -> None:
        self.ink = np.zeros((height, width, 3), np.float32)
        self.keep = np.ones((height, width, 1), np.float32)
        self.box(0, 0, height, width, radius=radius, colour=PANEL, opacity=PANEL_OPACITY)

    def write(self, m: Measures, text: str, x: int, y: int, colour: BGR) -> None:
        """Write a text, its baseline at y, on a part of the panel with room for letters beyond their nominal size."""
        left, top = max(0, x - m.text), max(0, y - 2 * m.text)
        height, width = self.ink[top : y + m.text, left : x + m.width(text) + m.text].shape[:2]
        mask = np.zeros((height, width), np.uint8)
        cv2.putText(mask, text, (x - left, y - top), FONT, m.font_scale, 255, m.stroke, cv2.LINE_AA)
        self._paint(mask, colour, x=left, y=top)

    def _paint(self, mask: NDArray[np.uint8], colour: BGR, *, x: int = 0, y: int = 0, opacity: float = 1.0) -> None:
        """Paint through a mask, its top left corner at (x, y)."""
        covered = mask[..., None] * np.float32(opacity / 255)
        at = np.s_[y : y + mask.shape[0], x : x + mask.shape[1]]
        self.ink[at] += (np.array(colour, np.float32) - self.ink[at]) * covered
        self.keep[at] -= self.keep[at] * covered

    def box(self, x: int, y: int, height: int, width: int, *, radius: int, colour: BGR, opacity: float = 1.0) -> None:
        """Paint a rectangle with round corners, drawn at four times its size for smooth edges."""
        large = np.zeros((4 * height, 4 * width), np.uint8)
        r = 4 * radius
        cv2.rectangle(large, (r, 0), (4 * width - r - 1, 4 * height), 255, cv2.FILLED)
        cv2.rectangle(large, (0, r), (4 * width, 4 * height - r - 1), 255, cv2.FILLED)
        for center in ((r, r), (4 * width - r, r), (r, 4 * height - r), (4 * width - r, 4 * height - r)):
            cv2.circle(large, center, r, 255, cv2.FILLED)
        mask = np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        self._paint(mask, colour, x=x, y=y, opacity=opacity)

    def sprite(self) -> Sprite:
        """Return the painted panel."""
        keep = np.repeat(np.rint(self.keep * 255), 3, axis=2).astype(np.uint8)
        return Sprite(ink=np.rint(self.ink).astype(np.uint8), keep=keep)


@lru_cache(maxsize=16)
def render_legend(classes: Classes, height: int) -> Sprite:
    """Render the colour and name of every class, in columns of at most half the image's `height`."""
    m = Measures(height)
    rows = min(len(classes), max(1, (height // 2) // m.line))
    columns = -(-len(classes) // rows)
    rows = -(-len(classes) // columns)
    swatch = m.text
    column = swatch + m.padding + max(map(m.width, classes.names)) + m.padding
    panel = Panel(rows * m.line + m.padding, columns * column + m.padding, radius=m.padding // 2)
    for i, (name, colour) in enumerate(zip(classes.names, classes.colours, strict=True)):
        x, y = m.padding + i // rows * column, m.padding // 2 + i % rows * m.line + (m.line - swatch) // 2
        # a rim, so that dark colours are visible
        panel.box(x - 1, y - 1, swatch + 2, swatch + 2, radius=swatch // 4, colour=WHITE, opacity=0.3)
        panel.box(x, y, swatch, swatch, radius=swatch // 5, colour=(colour[2], colour[1], colour[0]))
        panel.write(m, name, x + swatch + m.padding, y + round(swatch * 0.88), WHITE)
    return panel.sprite()


@lru_cache(maxsize=16)
def render_figures(items: tuple[tuple[str, str, str], ...], height: int) -> Sprite:
    """Render one line of (value, unit, widest value): values white, units grey.

    It is as wide as its widest values, so that the panel does not move when the figures change.
    """
    m = Measures(height)
    gap, space = 2 * m.padding, round(m.text * 0.35)
    slots = [max(m.width(value), m.width(widest)) for value, _, widest in items]
    width = sum(slots) + sum(m.width(unit) + space for _, unit, _ in items) + gap * (len(items) - 1) + 2 * m.padding
    panel = Panel(m.line + m.padding, width, radius=m.padding // 2)
    x, baseline = m.padding, (m.line + m.padding + round(m.text * 0.76)) // 2
    for (value, unit, _), slot in zip(items, slots, strict=True):
        panel.write(m, value, x + slot - m.width(value), baseline, WHITE)
        panel.write(m, unit, x + slot + space, baseline, GREY)
        x += slot + space + m.width(unit) + gap
    return panel.sprite()


def opacity_table(classes: Classes, opacity: float, exceptions: Mapping[str, float]) -> NDArray[np.float32]:
    """Return the opacity of every label, float32 (256,): `opacity`, or that of `exceptions` by class name.

    Void has 0, and so has the class `background` unless it is an exception: its colour would only darken the image.
    """
    table = np.zeros(256, np.float32)
    for label, name in enumerate(classes.names):
        table[label] = exceptions.get(name, 0.0 if name == BACKGROUND else opacity)
    return table


def draw_sprite(image: Image, sprite: Sprite, corner: Corner, *, below: Sprite | None = None) -> None:
    """Draw a sprite in a corner of the image, in place, `below` another sprite if given; clip it to the image."""
    margin = Measures(image.shape[0]).text
    away = margin + (below.ink.shape[0] + margin // 2 if below else 0)
    height, width = sprite.ink.shape[:2]
    top = away if corner.startswith("top") else max(0, image.shape[0] - height - away)
    left = margin if corner.endswith("left") else max(0, image.shape[1] - width - margin)
    draw_sprite_at(image, sprite, top, left)


def draw_sprite_at(image: Image, sprite: Sprite, top: int, left: int) -> None:
    """Draw a sprite in place, clipped at the right and lower edge of the image."""
    region = image[top : top + sprite.ink.shape[0], left : left + sprite.ink.shape[1]]
    if region.size:
        h, w = region.shape[:2]
        cv2.multiply(region, sprite.keep[:h, :w], dst=region, scale=1 / 255)
        cv2.add(region, sprite.ink[:h, :w], dst=region)


def draw_sprite_beside(image: Image, sprite: Sprite, corner: Corner, *, line: Sprite) -> None:
    """Draw a sprite in a corner of the image, in place, without covering the `line` in the top left corner.

    Where they do not fit side by side, the sprite goes below the line; where it does not fit there, it is omitted.
    """
    margin = Measures(image.shape[0]).text
    gap = margin // 2
    free_height, free_width = np.subtract(image.shape[:2], sprite.ink.shape[:2]) - 2 * margin
    beside = corner.endswith("right") and free_width >= line.ink.shape[1] + gap
    if beside or (free_width >= 0 and free_height >= line.ink.shape[0] + gap):
        draw_sprite(image, sprite, corner, below=None if beside or corner.startswith("bottom") else line)


def draw_outlines(image: Image, labels: Labels, bgr: NDArray[np.uint8], *, visible: NDArray[np.bool_]) -> None:
    """Draw a thin line just inside every region of the labels, in place.

    bgr: uint8 (256, 3) and visible: bool (256,), by label; regions of other labels get no line.
    """
    height, width = labels.shape
    scale = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)
    present = np.bincount(labels.ravel(), minlength=256) > 0
    padded = cv2.copyMakeBorder(labels, 3, 3, 3, 3, cv2.BORDER_REPLICATE)  # moves the edge of the image outside
    for label in np.flatnonzero(present & visible):
        mask = (padded == label).view(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(-3, -3))
        # In sixteenths of a pixel: the center of a label is between the pixels of a larger image.
        lines = [np.rint(((contour + 0.5) * scale - 0.5) * 16).astype(np.int32) for contour in contours]
        cv2.polylines(image, lines, True, bgr[label].tolist(), Measures(image.shape[0]).stroke, cv2.LINE_AA, 4)
