"""What stands over the picture besides the class colours: the legend, the line of figures, the outlines of regions.

Panels are painted once into a sprite and stamped on every frame. Sizes follow the picture's height.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.types import Classes, Image, Labels

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
BGR = tuple[int, int, int]

FONT = cv2.FONT_HERSHEY_SIMPLEX
SPECIMEN = "pedestrian 0123456789"
"""Text whose width sets the font's scale: OpenCV 4 and 5 draw different letters under the same name."""
PANEL: BGR = (28, 23, 20)
PANEL_OPACITY = 0.68
WHITE: BGR = (245, 245, 245)
GREY: BGR = (178, 174, 170)


@dataclass(frozen=True)
class Sprite:
    """A translucent picture to stamp: picture * keep / 255 + ink. Both uint8 (h, w, 3)."""

    ink: NDArray[np.uint8]
    keep: NDArray[np.uint8]


@dataclass(frozen=True)
class Measures:
    """The sizes in pixels of text and panels on a picture `height` pixels high: 1/50 of it, but never unreadable."""

    height: int
    font_scale: float = field(init=False)
    stroke: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stroke", max(1, round(self.text / 22)))
        (width, _), _ = cv2.getTextSize(SPECIMEN, FONT, 1.0, 1)
        object.__setattr__(self, "font_scale", 11.8 * self.text / width)

    @property
    def text(self) -> int:
        """The size of text: a capital letter is three quarters of it. Also the margin round panels."""
        return max(11, round(self.height / 50))

    @property
    def line(self) -> int:
        """From one line of text to the next, and the height of a panel of one line without its padding."""
        return round(self.text * 1.55)

    @property
    def padding(self) -> int:
        """Between a panel's edge and what is in it."""
        return round(self.text * 0.6)

    def width(self, text: str) -> int:
        """Of a text."""
        return int(cv2.getTextSize(text, FONT, self.font_scale, self.stroke)[0][0])

    def write(self, mask: NDArray[np.uint8], text: str, x: int, y: int) -> None:
        """Add a text to a mask, its baseline at y."""
        cv2.putText(mask, text, (x, y), FONT, self.font_scale, 255, self.stroke, cv2.LINE_AA)


class Canvas:
    """A dark rounded panel to paint on, in floating point."""

    def __init__(self, height: int, width: int, radius: int) -> None:
        self.ink = np.zeros((height, width, 3), np.float32)
        self.keep = np.ones((height, width, 1), np.float32)
        self.box(0, 0, height, width, radius=radius, colour=PANEL, opacity=PANEL_OPACITY)

    def mask(self) -> NDArray[np.uint8]:
        """An empty mask of the canvas's size."""
        return np.zeros(self.ink.shape[:2], np.uint8)

    def paint(self, mask: NDArray[np.uint8], colour: BGR, *, x: int = 0, y: int = 0, opacity: float = 1.0) -> None:
        """Paint through a mask whose top left corner is at (x, y)."""
        covered = mask[..., None] * np.float32(opacity / 255)
        at = np.s_[y : y + mask.shape[0], x : x + mask.shape[1]]
        self.ink[at] += (np.array(colour, np.float32) - self.ink[at]) * covered
        self.keep[at] -= self.keep[at] * covered

    def box(self, x: int, y: int, height: int, width: int, *, radius: int, colour: BGR, opacity: float = 1.0) -> None:
        """Paint a rectangle with round corners, smooth because it is drawn four times as large."""
        large = np.zeros((4 * height, 4 * width), np.uint8)
        r = 4 * radius
        cv2.rectangle(large, (r, 0), (4 * width - r - 1, 4 * height), 255, cv2.FILLED)
        cv2.rectangle(large, (0, r), (4 * width, 4 * height - r - 1), 255, cv2.FILLED)
        for centre in ((r, r), (4 * width - r, r), (r, 4 * height - r), (4 * width - r, 4 * height - r)):
            cv2.circle(large, centre, r, 255, cv2.FILLED)
        mask = np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        self.paint(mask, colour, x=x, y=y, opacity=opacity)

    def sprite(self) -> Sprite:
        """What was painted, ready to stamp."""
        keep = np.repeat(np.rint(self.keep * 255), 3, axis=2).astype(np.uint8)
        return Sprite(ink=np.rint(self.ink).astype(np.uint8), keep=keep)


@lru_cache(maxsize=16)
def legend(classes: Classes, height: int) -> Sprite:
    """Swatch and name of every class, in columns of at most half the picture's `height`."""
    m = Measures(height)
    rows = min(len(classes), max(1, (height // 2) // m.line))
    columns = -(-len(classes) // rows)
    rows = -(-len(classes) // columns)
    swatch = m.text
    column = swatch + m.padding + max(map(m.width, classes.names)) + m.padding
    canvas = Canvas(rows * m.line + m.padding, columns * column + m.padding, radius=m.padding // 2)
    names = canvas.mask()
    for i, (name, colour) in enumerate(zip(classes.names, classes.colours, strict=True)):
        x, y = m.padding + i // rows * column, m.padding // 2 + i % rows * m.line + (m.line - swatch) // 2
        canvas.box(
            x - 1, y - 1, swatch + 2, swatch + 2, radius=swatch // 4, colour=WHITE, opacity=0.3
        )  # dark colours too
        canvas.box(x, y, swatch, swatch, radius=swatch // 5, colour=(colour[2], colour[1], colour[0]))
        m.write(names, name, x + swatch + m.padding, y + round(swatch * 0.88))
    canvas.paint(names, WHITE)
    return canvas.sprite()


@lru_cache(maxsize=16)
def figures(items: tuple[tuple[str, str, str], ...], height: int) -> Sprite:
    """One line of (value, unit, widest value): values white, units grey; as wide as the widest values, so that the
    panel stays when the figures change."""
    m = Measures(height)
    gap, space = 2 * m.padding, round(m.text * 0.35)
    slots = [max(m.width(value), m.width(widest)) for value, _, widest in items]
    width = sum(slots) + sum(m.width(unit) + space for _, unit, _ in items) + gap * (len(items) - 1) + 2 * m.padding
    canvas = Canvas(m.line + m.padding, width, radius=m.padding // 2)
    values, units = canvas.mask(), canvas.mask()
    x, baseline = m.padding, (m.line + m.padding + round(m.text * 0.76)) // 2
    for (value, unit, _), slot in zip(items, slots, strict=True):
        m.write(values, value, x + slot - m.width(value), baseline)
        m.write(units, unit, x + slot + space, baseline)
        x += slot + space + m.width(unit) + gap
    canvas.paint(values, WHITE)
    canvas.paint(units, GREY)
    return canvas.sprite()


def stamp(image: Image, sprite: Sprite, corner: Corner, *, below: Sprite | None = None) -> None:
    """Draw a sprite in a corner of the image, in place, or next `below` one that is there. What does not fit is cut."""
    margin = Measures(image.shape[0]).text
    away = margin + (below.ink.shape[0] + margin // 2 if below else 0)
    height, width = sprite.ink.shape[:2]
    top = away if corner.startswith("top") else max(0, image.shape[0] - height - away)
    left = margin if corner.endswith("left") else max(0, image.shape[1] - width - margin)
    region = image[top : top + height, left : left + width]
    if region.size:
        h, w = region.shape[:2]
        cv2.multiply(region, sprite.keep[:h, :w], dst=region, scale=1 / 255)
        cv2.add(region, sprite.ink[:h, :w], dst=region)


def stamp_beside(image: Image, sprite: Sprite, corner: Corner, *, line: Sprite) -> None:
    """Draw a sprite in a corner of the image, in place, so that it covers nothing of the `line` in the top left one.

    Where both do not fit side by side, it stands below the line; where it does not fit there whole, it is left out.
    """
    margin = Measures(image.shape[0]).text
    gap = margin // 2
    left_high, left_wide = np.subtract(image.shape[:2], sprite.ink.shape[:2]) - 2 * margin
    beside = corner.endswith("right") and left_wide >= line.ink.shape[1] + gap
    if beside or (left_wide >= 0 and left_high >= line.ink.shape[0] + gap):
        stamp(image, sprite, corner, below=None if beside or corner.startswith("bottom") else line)


def outline(image: Image, labels: Labels, bgr: NDArray[np.uint8], *, drawn: NDArray[np.bool_]) -> None:
    """Draw a thin line just inside every region of the labels, in place: by label in colour `bgr` where `drawn`."""
    height, width = labels.shape
    scale = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)
    present = np.bincount(labels.ravel(), minlength=256) > 0
    padded = cv2.copyMakeBorder(labels, 3, 3, 3, 3, cv2.BORDER_REPLICATE)  # the picture's own edge falls outside it
    for label in np.flatnonzero(present & drawn):
        mask = (padded == label).view(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(-3, -3))
        # In sixteenths of a pixel: the centre of a label is no whole pixel of a larger picture.
        lines = [np.rint(((contour + 0.5) * scale - 0.5) * 16).astype(np.int32) for contour in contours]
        cv2.polylines(image, lines, True, bgr[label].tolist(), Measures(image.shape[0]).stroke, cv2.LINE_AA, 4)
