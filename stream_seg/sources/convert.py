"""Convert decoded frames to the images that a player shows: BGR, upright, with square pixels, in SDR."""

from __future__ import annotations

import logging
import struct
from fractions import Fraction
from functools import partial
from threading import Lock

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from stream_seg.errors import SourceError, describe_exception
from stream_seg.frame import PendingImage
from stream_seg.types import Image

LOG = logging.getLogger(__name__)

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_MATRICES = frozenset((1, _UNSPECIFIED, 4, 5, 6, 7, 9))
"""Color matrices (AVCOL_SPC) that swscale converts: BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020 non-constant."""
_OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 constant luminance", 14: "ICtCp", 15: "IPT-C2 (Dolby Vision)"}
_HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, -90: cv2.ROTATE_90_CLOCKWISE}
_ROTATIONS |= {180: cv2.ROTATE_180, -180: cv2.ROTATE_180}
WIDEST_ASPECT = 4
"""Largest ratio of a pixel's sides. Half-width PAL has 2.9, the widest lens 2; more is a mistake of the header."""
SLIGHT_ASPECT = Fraction(1, 200)
"""Deviation from square pixels that is ignored: rounding of a display size, not worth a second resampling."""


class Converter:
    """Convert the frames of one video, in any thread. A property that no conversion shows exactly is logged once, with
    `name`."""

    def __init__(self, name: str) -> None:
        self._name, self._reformatter, self._logged = name, VideoReformatter(), set[str]()
        self._lock = Lock()
        self._checked: tuple[object, ...] = ()
        self._layout: tuple[int, int, int] | None = None
        self._mirrored = False

    def defer(self, frame: av.VideoFrame, *, pixel_aspect: Fraction | None = None) -> PendingImage:
        """Return the image of a frame, which is converted on first access.

        The first frame of every kind is converted at once: what cannot be converted is an error here, not in the stage
        that reads the image.
        """
        width, height = square_size(frame.width, frame.height, pixel_aspect)
        if frame.rotation in (90, -90):
            width, height = height, width
        image = PendingImage(partial(self.convert, frame, pixel_aspect=pixel_aspect), (height, width, 3))
        kind = (
            *(frame.format.name, frame.width, frame.height, frame.rotation, pixel_aspect),
            *(frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries),
        )
        if kind != self._checked:
            image.read()
            self._checked = kind
        return image

    def convert(self, frame: av.VideoFrame, *, pixel_aspect: Fraction | None = None) -> Image:
        """Return the image of a frame, as `to_upright_bgr` does."""
        with self._lock:
            return self._convert(frame, pixel_aspect)

    def _convert(self, frame: av.VideoFrame, pixel_aspect: Fraction | None) -> Image:
        layout = frame.rotation, frame.width, frame.height
        if layout != self._layout:  # is_mirrored leaves garbage
            self._layout, self._mirrored = layout, is_mirrored(frame)
        if frame.interlaced_frame:
            self._log("is interlaced: each image combines two fields, so moving edges are combed")
        if frame.colorspace not in _MATRICES and not frame.format.is_rgb:
            matrix = _OTHER_MATRICES.get(frame.colorspace, f"number {frame.colorspace}")
            self._log(f"the color matrix {matrix} cannot be converted; the usual one of this size is taken")
        if frame.color_trc in _HDR:
            self._log(f"is HDR ({_HDR[ColorTrc(frame.color_trc)]}), which is tone-mapped to SDR")
        if pixel_aspect is not None and not 1 <= WIDEST_ASPECT * pixel_aspect <= WIDEST_ASPECT**2:
            self._log(f"claims pixels of {pixel_aspect.numerator}:{pixel_aspect.denominator}, which is ignored")
        return to_upright_bgr(
            frame, self._reformatter, name=self._name, mirrored=self._mirrored, pixel_aspect=pixel_aspect
        )

    def _log(self, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            LOG.warning("%s: %s", self._name, message)


def is_mirrored(frame: av.VideoFrame) -> bool:
    """Return True if the display matrix of a frame mirrors it.

    PyAV then ties the frame and its side data in a reference cycle, which lives until Python's next garbage collection;
    called for every frame of a stream, this would hold 400 MiB of 1080p.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know EXIF, and then reads no other side data either
        return False
    if not isinstance(matrix, SideData):
        return False
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    return bool(a * d < b * c)


def square_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return the (width, height) of an image with square pixels: the side that grows is enlarged, to an even number.

    `pixel_aspect` is the width of a pixel divided by its height (sample aspect ratio). None, a value within
    SLIGHT_ASPECT of 1 and one beyond WIDEST_ASPECT leave the size as it is.
    """
    if pixel_aspect is None or abs(pixel_aspect - 1) <= SLIGHT_ASPECT:
        return width, height
    if 1 < pixel_aspect <= WIDEST_ASPECT:
        return 2 * round(width * pixel_aspect / 2), height
    if 1 <= WIDEST_ASPECT * pixel_aspect < WIDEST_ASPECT:
        return width, 2 * round(height / pixel_aspect / 2)
    return width, height


def to_upright_bgr(
    frame: av.VideoFrame,
    reformatter: VideoReformatter,
    *,
    name: str,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
) -> Image:
    """Convert a frame to the image that a player shows: by the stream's color matrix and range, rotated and mirrored.

    The rotation is the angle that PyAV reads from the display matrix; `mirrored` is not part of it. Pixels of
    `pixel_aspect` become square, and HDR becomes SDR (`ops.tone_map`). A stream without a color matrix, or with one
    that swscale does not know, gets the one that mpv and VLC choose by size: BT.709 from 1280 wide or above 576 lines,
    else BT.601. The image is a copy, writable and C-contiguous. Raises SourceError, with `name`, for a pixel format
    that cannot be converted. swscale takes 0.6 ms for 1920x1080 on one core, no more than OpenCV, whose conversion
    knows BT.601 only; more threads gained nothing.
    """
    transfer = frame.color_trc
    chosen_matrix = None
    if (frame.colorspace == _UNSPECIFIED or frame.colorspace not in _MATRICES) and not frame.format.is_rgb:
        chosen_matrix = _default_matrix(frame)
    width, height = square_size(frame.width, frame.height, pixel_aspect)
    try:
        converted = reformatter.reformat(
            frame,
            width,
            height,
            "gbrp10le" if transfer in _HDR else "bgr24",
            src_colorspace=chosen_matrix,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        kind = f"pixel format {frame.format.name}, color matrix {frame.colorspace}"
        raise SourceError(f"{name}: cannot be converted to BGR ({kind}): {describe_exception(error)}") from error
    if transfer in _HDR:
        bgr = _tone_map(converted, ColorTrc(transfer), wide=frame.color_primaries != ColorPrimaries.BT709)
    else:
        bgr = np.asarray(converted.to_ndarray(), np.uint8)
    upright, rotation = bgr, _ROTATIONS.get(frame.rotation)
    if mirrored:  # the angle is that of the rows: a mirrored image is upside down before the rotation
        upright = np.asarray(cv2.flip(upright, 0), np.uint8)
    if rotation is not None:
        upright = np.asarray(cv2.rotate(upright, rotation), np.uint8)
    if upright is not bgr:
        return upright
    # If nothing had to be converted, this is the decoder's own memory.
    return bgr.copy() if converted is frame else np.ascontiguousarray(bgr)


def _default_matrix(frame: av.VideoFrame) -> Colorspace:
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601


def _tone_map(frame: av.VideoFrame, transfer: ColorTrc, *, wide: bool) -> Image:
    """Return the SDR image of a frame in the pixel format gbrp10le."""
    from stream_seg.ops.tone_map import tone_map  # imports numba: too slow for a help text

    green, blue, red = (
        np.frombuffer(plane, np.uint16).reshape(plane.height, plane.line_size // 2)[:, : frame.width]  # type: ignore[call-overload]
        for plane in frame.planes
    )
    return tone_map(green, blue, red, "PQ" if transfer == ColorTrc.SMPTE2084 else "HLG", wide=wide)
