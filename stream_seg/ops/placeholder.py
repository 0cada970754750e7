"""Draw the images that replace or mark missing images of a live source."""

from __future__ import annotations

import cv2
import numpy as np

from stream_seg.ops.draw import GREY, WHITE, Canvas, Measures
from stream_seg.types import Image

TOP, BOTTOM = (46, 38, 33), (24, 19, 16)
AMBER = (60, 176, 245)


def draw_placeholder(size: tuple[int, int], stream: str, reason: str, *, since_s: float) -> Image:
    """Return a dark image of `size` = (height, width) with NO SIGNAL, the stream, the reason and the elapsed time."""
    height, width = size
    shade = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = (1 - shade) * np.array(TOP, np.float32) + shade * np.array(BOTTOM, np.float32)
    image: Image = np.ascontiguousarray(np.broadcast_to(np.rint(column), (height, width, 3)).astype(np.uint8))
    lines = [
        ("NO SIGNAL", 0.085, WHITE),
        (stream, 0.05, AMBER),
        (reason, 0.04, GREY),
        (format_elapsed(since_s), 0.04, GREY),
    ]
    y = height * 0.36
    for text, share, colour in lines:
        _draw_centered(image, _to_ascii(text), round(y), share * height, colour)
        y += height * (share * 0.9 + 0.045)
    return image


def draw_banner(image: Image, message: str, *, since_s: float) -> Image:
    """Return a dimmed copy of the image with a message and the elapsed time in its middle."""
    dimmed = np.asarray(cv2.convertScaleAbs(image, alpha=0.45), np.uint8)
    m = Measures(image.shape[0])
    text = f"{message}  {format_elapsed(since_s)}"
    canvas = Canvas(m.line + 2 * m.padding, m.width(text) + 4 * m.padding, radius=m.padding)
    mask = canvas.mask()
    m.write(mask, text, 2 * m.padding, m.padding + round(m.line * 0.7))
    canvas.paint(mask, AMBER)
    sprite = canvas.sprite()
    rows, columns = min(sprite.ink.shape[0], image.shape[0]), min(sprite.ink.shape[1], image.shape[1])
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    region = dimmed[top : top + rows, left : left + columns]
    cv2.multiply(region, sprite.keep[:rows, :columns], dst=region, scale=1 / 255)
    cv2.add(region, sprite.ink[:rows, :columns], dst=region)
    return dimmed


def format_elapsed(seconds: float) -> str:
    """Return a duration as `0:07`, `12:40` or `3:05:09`."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _draw_centered(image: Image, text: str, y: int, size: float, colour: tuple[int, int, int]) -> None:
    """Draw a text at most `size` pixels high and nine tenths of the image wide, its baseline at y."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (full, tall), _ = cv2.getTextSize(text, font, 1.0, 1)
    scale = min(size / max(tall, 1), 0.9 * image.shape[1] / max(full, 1))
    stroke = max(1, round(scale * 1.6))
    (full, _), _ = cv2.getTextSize(text, font, scale, stroke)
    cv2.putText(image, text, (round((image.shape[1] - full) / 2), y), font, scale, colour, stroke, cv2.LINE_AA)


def _to_ascii(text: str) -> str:
    """Replace the characters that OpenCV cannot draw."""
    return text.encode("ascii", "replace").decode()
