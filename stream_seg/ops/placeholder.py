"""Draw the images that replace or mark missing images of a live source."""

from __future__ import annotations

import cv2
import numpy as np

from stream_seg.ops.draw import FONT, GREY, WHITE, Measures, Panel, draw_sprite_at
from stream_seg.types import Image

TOP, BOTTOM = (46, 38, 33), (24, 19, 16)
AMBER = (60, 176, 245)


def draw_placeholder(size: tuple[int, int], stream: str, reason: str, *, since_s: float) -> Image:
    """Return a dark image of `size` = (height, width) with NO SIGNAL, the stream, the reason and the elapsed time."""
    height, width = size
    shade = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = (1 - shade) * np.array(TOP, np.float32) + shade * np.array(BOTTOM, np.float32)
    image: Image = np.ascontiguousarray(np.broadcast_to(np.rint(column), (height, width, 3)).astype(np.uint8))
    y = height * 0.36
    for text, share, colour in (
        ("NO SIGNAL", 0.085, WHITE),
        (stream, 0.05, AMBER),
        (reason, 0.04, GREY),
        (format_elapsed(since_s), 0.04, GREY),
    ):
        line = text.encode("ascii", "replace").decode()  # OpenCV draws no other characters
        (full, tall), _ = cv2.getTextSize(line, FONT, 1.0, 1)
        scale = min(share * height / max(tall, 1), 0.9 * width / max(full, 1))
        stroke = max(1, round(scale * 1.6))
        (full, _), _ = cv2.getTextSize(line, FONT, scale, stroke)
        cv2.putText(image, line, (round((width - full) / 2), round(y)), FONT, scale, colour, stroke, cv2.LINE_AA)
        y += height * (share * 0.9 + 0.045)
    return image


def draw_banner(image: Image, message: str, *, since_s: float) -> Image:
    """Return a dimmed copy of the image with a message and the elapsed time in its middle."""
    dimmed = np.asarray(cv2.convertScaleAbs(image, alpha=0.45), np.uint8)
    m = Measures(image.shape[0])
    text = f"{message}  {format_elapsed(since_s)}"
    panel = Panel(m.line + 2 * m.padding, m.width(text) + 4 * m.padding, radius=m.padding)
    panel.write(m, text, 2 * m.padding, m.padding + round(m.line * 0.7), AMBER)
    sprite = panel.sprite()
    rows, columns = (max(0, image.shape[axis] - sprite.ink.shape[axis]) for axis in (0, 1))
    draw_sprite_at(dimmed, sprite, rows // 2, columns // 2)
    return dimmed


def format_elapsed(seconds: float) -> str:
    """Return a duration as `0:07`, `12:40` or `3:05:09`."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
