"""Clips of numbered frames, written and read with PyAV: numbers in, the same numbers out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from stream_seg.types import Image

BITS = 12
MILLISECOND = Fraction(1, 1000)


def number_image(number: int, size: tuple[int, int] = (320, 240)) -> Image:
    """Return an image of (width, height) that shows a number: in digits, and for `read_number` as a row of bright and
    dark fields at the top. The upper half is bluish, the lower reddish, so that it has a right way up."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2], image[height // 2 :] = (160, 110, 90), (90, 110, 160)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        image[: height // 6, left:right] = 230 if number >> bit & 1 else 25
    cv2.putText(
        image, str(number), (width // 3, height * 2 // 3), cv2.FONT_HERSHEY_SIMPLEX, height / 120, (255,) * 3, 2
    )
    return image


def read_number(image: Image) -> int:
    """Return the number of a `number_image`, at any size and after any compression."""
    height, width = image.shape[:2]
    centers = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    return sum(int(image[height // 12, x].mean() > 128) << bit for bit, x in enumerate(centers))


def write_video(
    path: Path,
    images: Iterable[Image],
    *,
    pts: Sequence[int] | None = None,
    time_base: Fraction = MILLISECOND,
    rate: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write `images` at the times `pts` in units of `time_base`, or at `rate` frames/s. `rotation` is the angle of the
    display matrix, in degrees counterclockwise."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = None
        for index, image in enumerate(images):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options or {})
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.codec_context.time_base = time_base
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            frame.time_base = time_base
            frame.pts = round(index / rate / time_base) if pts is None else pts[index]
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
    return path


def read_video(path: Path) -> list[tuple[Fraction, Image]]:
    """Return (time in seconds, image) of every frame, decoded without stream_seg."""
    with av.open(str(path)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]


def count_frames(path: Path | str) -> int:
    """Return the number of frames that a player gets from a file, which may be cut off anywhere after its header."""
    number = 0
    with av.open(str(path)) as container, suppress(av.InvalidDataError):
        for _ in container.decode(video=0):
            number += 1
    return number


class Box(NamedTuple):
    """A box of an MP4 at its top level: type, and the range of its bytes."""

    kind: str
    begin: int
    end: int


def is_ordinary_mp4(path: Path) -> bool:
    """Return whether an MP4 has one index for one block of data, instead of fragments."""
    return [box.kind for box in list_boxes(path.read_bytes())] == ["ftyp", "free", "mdat", "moov"]


def list_boxes(content: bytes) -> list[Box]:
    """Return the boxes of an MP4 at its top level."""
    boxes, position = [], 0
    while position < len(content):
        end = position + int.from_bytes(content[position : position + 4], "big")
        boxes.append(Box(content[position + 4 : position + 8].decode("latin-1"), position, end))
        position = end
    return boxes
