"""Samples of decoded frames: equal for one image, different for a change of any channel."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from stream_seg.sources.sample import Sample, sample_frame, sample_image

SIZE = (322, 242)
"""(width, height) that leaves bytes of padding at the end of every row."""


def make_frame(pix_fmt: str, planes: list[int]) -> av.VideoFrame:
    """Return a frame with one byte value for each plane, its padding included."""
    frame = av.VideoFrame(*SIZE, pix_fmt)
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def sample(frame: av.VideoFrame) -> Sample:
    result = sample_frame(frame)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("pix_fmt", "planes"),
    [
        ("yuv420p", 3),
        ("yuvj422p", 3),
        ("nv12", 2),
        ("yuyv422", 1),
        ("uyvy422", 1),
        ("gray", 1),
        ("bgr24", 1),
        ("gbrp", 3),
    ],
)
def test_a_change_of_any_plane_is_noticed_and_rounding_is_not(pix_fmt: str, planes: int) -> None:
    still = sample(make_frame(pix_fmt, [100] * planes))
    assert still.equals(sample(make_frame(pix_fmt, [101] * planes)))
    for plane in range(planes):
        assert not still.equals(sample(make_frame(pix_fmt, [100 + 2 * (number == plane) for number in range(planes)])))


def test_all_channels_of_packed_pixels_are_sampled() -> None:
    for channel in range(4):
        frame = make_frame("yuyv422", [100])
        (plane,) = frame.planes
        rows = np.full((plane.height, plane.line_size), 100, np.uint8)
        rows[:, channel::4] = 110
        plane.update(rows.tobytes())
        assert not sample(frame).equals(sample(make_frame("yuyv422", [100])))


def test_padding_is_not_sampled() -> None:
    frame = make_frame("yuv420p", [100] * 3)
    for plane in frame.planes:
        rows = np.random.default_rng(0).integers(0, 256, (plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = 100
        plane.update(rows.tobytes())
    assert sample(frame).equals(sample(make_frame("yuv420p", [100] * 3)))


def test_values_of_ten_bits_are_compared_in_levels_of_eight() -> None:
    samples = []
    for luma in (512, 516, 517):
        frame = av.VideoFrame(*SIZE, "yuv420p10le")
        for plane in frame.planes:
            plane.update(np.full(plane.buffer_size // 2, luma, np.uint16).tobytes())
        samples.append(sample(frame))
    assert samples[0].equals(samples[1])
    assert not samples[0].equals(samples[2])


def test_frames_of_another_size_or_format_differ() -> None:
    still = sample(make_frame("yuv420p", [100] * 3))
    assert not still.equals(sample(av.VideoFrame(320, 240, "yuv420p")))
    assert not still.equals(sample(av.VideoFrame(*SIZE, "yuv420p10le")))


@pytest.mark.parametrize("pix_fmt", ["pal8", "rgb565le", "monow", "gbrapf32le", "yuv444p16be"])
def test_a_format_without_plain_values_is_not_sampled(pix_fmt: str) -> None:
    assert sample_frame(av.VideoFrame(*SIZE, pix_fmt)) is None


def test_rows_from_the_bottom_up_are_not_sampled(tmp_path: Path) -> None:
    """The memory of a plane does not begin at its first row: reading on from there would leave it."""
    path = tmp_path / "bottom_up.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", 30)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "bgr24"
        container.mux(stream.encode(av.VideoFrame(*SIZE, "bgr24")))
    header = path.read_bytes()
    size = struct.pack("<2i", SIZE[0], -SIZE[1])  # a negative height: from the top down
    assert header.count(size) == 1
    path.write_bytes(header.replace(size, struct.pack("<2i", *SIZE)))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.planes[0].line_size < 0
        assert sample_frame(frame) is None


def test_images_are_sampled_too_into_a_copy() -> None:
    image = np.full((9, 16, 3), 100, np.uint8)
    still, changed = sample_image(image), image.copy()
    changed[8] = 130
    assert sample_image(image + np.uint8(1)).equals(still)
    assert not sample_image(changed).equals(still)
    assert not sample_image(image[:4]).equals(still)
    image[:] = 0
    assert still.values.min() == 100
