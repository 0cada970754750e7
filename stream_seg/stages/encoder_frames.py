"""Frames for an encoder of 4:2:0 video, made of images; their memory is used again."""

from __future__ import annotations

from collections import deque

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from stream_seg.types import Image

IN_TURN = 2
"""Frames that are used in turn: the first one of a file waits for the second, which determines the rate."""


class EncoderFrames:
    """Convert images of `size` = (height, width), both even, to 4:2:0, BT.709 at limited range.

    With `reuse` a frame is valid until the second call after its own: new memory for each frame costs more time than
    the conversion. A frame that the encoder still refers to is not overwritten.
    """

    def __init__(self, size: tuple[int, int], *, reuse: bool) -> None:
        self._size, self._reuse = size, reuse
        self._frames: deque[av.VideoFrame] = deque()

    def convert(self, image: Image) -> av.VideoFrame:
        """Return the frame of an image of this size, without a time."""
        from stream_seg.ops.i420 import convert_to_i420  # imports numba: too slow for a help text

        frame = self._next()
        planes = (
            np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size) for plane in frame.planes
        )
        convert_to_i420(image, *planes)
        return frame

    def _next(self) -> av.VideoFrame:
        if len(self._frames) == IN_TURN:
            frame = self._frames.popleft()
            frame.make_writable()  # a copy if FFmpeg has a reference; x264 copies each frame, so there is none
        else:
            height, width = self._size
            frame = av.VideoFrame(width, height, "yuv420p")
            frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
        if self._reuse:
            self._frames.append(frame)
        return frame
