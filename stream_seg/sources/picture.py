"""A decoded picture on its way to becoming a Frame: upright, in the right colours."""

from __future__ import annotations

import struct
from collections.abc import Generator
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from stream_seg.types import Image


class Picture(NamedTuple):
    """`pts` and `duration` are in units of `time_base` seconds; a stream may leave `pts` out."""

    image: Image
    pts: int | None
    duration: int
    time_base: Fraction
    captured_ns: int


Pictures: TypeAlias = Generator[Picture | None, None, None]
"""In order; None stands for a picture that was there but could not be decoded."""

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, -90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, -180: cv2.ROTATE_180}


class Mirroring:
    """Whether the display matrix of a stream's pictures mirrors them.

    PyAV ties a frame whose side data was asked for to that side data, and keeps it until Python next looks for such
    rings: 400 MiB of 1080p. So it is asked once, and again where the angle or the size has changed.
    """

    def __init__(self) -> None:
        self._asked: tuple[int, int, int] | None = None
        self._mirrored = False

    def of(self, frame: av.VideoFrame) -> bool:
        """Whether this picture is mirrored, the pictures of a stream being given in their order."""
        shape = frame.rotation, frame.width, frame.height
        if shape != self._asked:
            self._asked, self._mirrored = shape, _mirrored_by_matrix(frame)
        return self._mirrored


def _mirrored_by_matrix(frame: av.VideoFrame) -> bool:
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows no EXIF, and then tells of no other side data either
        return False
    if not isinstance(matrix, SideData):
        return False
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    return bool(a * d < b * c)


def upright_bgr(frame: av.VideoFrame, reformatter: VideoReformatter, *, mirrored: bool = False) -> Image:
    """The picture as a player shows it: the stream's own matrix and range, turned by its display matrix,
    which PyAV tells as an angle, and by whether it is `mirrored`.

    A stream that names no matrix gets the one that mpv and VLC take by size: BT.709 from 1280 wide or above 576 lines,
    BT.601 below. Fresh, writeable and C-contiguous. swscale takes 0.6 ms for 1920x1080 on one core, no more than
    OpenCV, whose conversion knows BT.601 only; more threads gained nothing.
    """
    matrix = None
    if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
        high_definition = frame.width >= 1280 or frame.height > 576
        matrix = Colorspace.ITU709 if high_definition else Colorspace.ITU601
    converted = reformatter.reformat(
        frame, format="bgr24", src_colorspace=matrix, dst_color_range=ColorRange.JPEG, threads=1
    )
    bgr = np.asarray(converted.to_ndarray(), np.uint8)
    upright, turn = bgr, _TURNS.get(frame.rotation)
    if mirrored:  # The angle is that of the rows; what is mirrored stands on its head before the turn.
        upright = np.asarray(cv2.flip(upright, 0), np.uint8)
    if turn is not None:
        upright = np.asarray(cv2.rotate(upright, turn), np.uint8)
    if upright is not bgr:
        return upright
    # Where nothing had to be converted, this is the decoder's own memory.
    return bgr.copy() if converted is frame else np.ascontiguousarray(bgr)
