"""Decoded frames have the right colours, whatever their pixel format."""

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from stream_seg.sources.convert import to_upright_bgr

MATRICES = {"709": (0.2126, 0.0722), "601": (0.299, 0.114), "2020": (0.2627, 0.0593)}
SPACES = {"709": 1, "601": 6, "2020": 9, "unspecified": 2}
LIMITED, FULL = 1, 2
COLOURS = [(200, 40, 60), (30, 180, 60), (20, 60, 220), (255, 255, 255), (0, 0, 0)]


def yuv_frame(
    rgb: tuple[int, int, int], matrix: str, *, full: bool = False, size: tuple[int, int] = (320, 240)
) -> av.VideoFrame:
    """Return a frame of one colour, converted by the formulas of the standard."""
    red, green, blue = (value / 255 for value in rgb)
    kr, kb = MATRICES[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    values = [255 * luma if full else 16 + 219 * luma, *(128 + (255 if full else 224) * c for c in chroma)]
    frame = av.VideoFrame(*size, "yuv420p")
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    return frame


def max_error(frame: av.VideoFrame, rgb: tuple[int, int, int]) -> int:
    image = to_upright_bgr(frame, VideoReformatter(), name="a test")
    return int(np.abs(image.astype(int) - rgb[::-1]).max())


@pytest.mark.parametrize("rgb", COLOURS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_follow_the_matrix_and_range_of_the_stream(rgb: tuple[int, int, int], full: bool, matrix: str) -> None:
    frame = yuv_frame(rgb, matrix, full=full)
    frame.colorspace, frame.color_range = SPACES[matrix], FULL if full else LIMITED
    assert max_error(frame, rgb) <= 3


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((640, 480), "601"),
        ((720, 576), "601"),
        ((960, 540), "601"),
        ((1280, 544), "709"),
        ((1024, 600), "709"),
        ((1920, 1080), "709"),
    ],
)
def test_an_unspecified_matrix_is_chosen_by_size_as_in_players(size: tuple[int, int], matrix: str) -> None:
    other = {"601": "709", "709": "601"}[matrix]
    assert max_error(yuv_frame(COLOURS[0], matrix, size=size), COLOURS[0]) <= 3
    assert max_error(yuv_frame(COLOURS[0], other, size=size), COLOURS[0]) > 10


@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12", "yuyv422", "gray", "rgb24", "bgr24", "gbrp"],
)
def test_every_pixel_format_is_converted_to_a_new_array(pix_fmt: str) -> None:
    # 322 x 3 bytes is no multiple of the alignment of lines in FFmpeg.
    gray = av.VideoFrame.from_ndarray(np.full((242, 322, 3), 150, np.uint8), "bgr24").reformat(
        format=pix_fmt, threads=1
    )
    reformatter = VideoReformatter()
    first, second = to_upright_bgr(gray, reformatter, name="a test"), to_upright_bgr(gray, reformatter, name="a test")
    assert (first.shape, first.dtype, first.flags.c_contiguous) == ((242, 322, 3), np.uint8, True)
    assert np.abs(first.astype(int) - 150).max() <= 4  # FFmpeg's conversion to YUV is off by one
    first[:] = 0
    assert second.min() > 0
    assert to_upright_bgr(gray, reformatter, name="a test").min() > 0
