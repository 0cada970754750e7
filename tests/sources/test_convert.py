"""Decoded frames have the right colours and shape, whatever their pixel format, color matrix, aspect or transfer."""

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

from stream_seg.errors import SourceError
from stream_seg.ops.tone_map import Transfer
from stream_seg.sources import convert
from stream_seg.sources.convert import Converter, square_size, to_upright_bgr
from stream_seg.types import Image
from tests.ops.test_tone_map import encode_light
from tests.support.clips import number_image, write_video

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


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "number 0"),
        (3, "number 3"),
        (8, "YCgCo"),
        (10, "BT.2020 constant luminance"),
        (14, "ICtCp"),
        (15, "IPT-C2 (Dolby Vision)"),
        (17, "number 17"),
    ],
)
def test_a_matrix_that_cannot_be_converted_counts_as_unspecified(
    number: int, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    converter, frame = Converter("a.mp4"), yuv_frame(COLOURS[0], "601")
    frame.colorspace = number
    for _ in range(3):
        assert np.abs(converter.convert(frame).astype(int) - COLOURS[0][::-1]).max() <= 3
    message = f"a.mp4: the color matrix {shown} cannot be converted; the usual one of this size is taken"
    assert [record.getMessage() for record in caplog.records] == [message]


@pytest.mark.parametrize("pix_fmt", ["rgb24", "gbrp", "gray"])
def test_the_matrix_of_an_image_without_chroma_does_not_matter(pix_fmt: str) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), "bgr24").reformat(format=pix_fmt, threads=1)
    frame.colorspace = 8
    assert np.abs(Converter("a.png").convert(frame).astype(int) - 90).max() <= 1


def test_a_pixel_format_that_cannot_be_converted_is_an_error_that_names_the_file() -> None:
    with pytest.raises(SourceError, match=r"^a\.mkv: cannot be converted to BGR \(pixel format bgr4"):
        Converter("a.mkv").convert(av.VideoFrame(64, 48, "bgr4"))


@pytest.mark.parametrize(
    ("size", "aspect", "square"),
    [
        ((720, 576), Fraction(64, 45), (1024, 576)),
        ((720, 576), Fraction(16, 15), (768, 576)),
        ((720, 480), Fraction(8, 9), (720, 540)),
        ((720, 480), Fraction(32, 27), (854, 480)),
        ((1440, 1080), Fraction(4, 3), (1920, 1080)),
        ((1920, 1080), Fraction(1, 1), (1920, 1080)),
        ((1920, 1080), None, (1920, 1080)),
        ((1920, 1080), Fraction(1920, 1921), (1920, 1080)),
        ((64, 48), Fraction(4, 1), (256, 48)),
        ((64, 48), Fraction(1, 4), (64, 192)),
        ((64, 48), Fraction(5, 1), (64, 48)),
        ((64, 48), Fraction(1, 255), (64, 48)),
    ],
)
def test_the_side_that_grows_makes_pixels_square(
    size: tuple[int, int], aspect: Fraction | None, square: tuple[int, int]
) -> None:
    assert square_size(*size, aspect) == square


def test_an_implausible_aspect_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    image = Converter("a.mp4").convert(yuv_frame(COLOURS[0], "601"), pixel_aspect=Fraction(1, 255))
    assert image.shape == (240, 320, 3)
    assert [record.getMessage() for record in caplog.records] == ["a.mp4: claims pixels of 1:255, which is ignored"]


def ten_bit_frame(
    codes: list[float], transfer: ColorTrc, primaries: ColorPrimaries = ColorPrimaries.BT2020
) -> av.VideoFrame:
    """Return a grey frame with a column of 64 pixels for each code, 0 to 1."""
    frame = av.VideoFrame(64 * len(codes), 48, "yuv420p10le")
    luma = np.repeat(np.rint(64 + 876 * np.array(codes)).astype(np.uint16), 64)
    for plane, row in zip(frame.planes, (luma, None, None), strict=True):
        samples = np.full((plane.height, plane.line_size // 2), 512, np.uint16)
        if row is not None:
            samples[:, : len(row)] = row
        plane.update(samples.tobytes())
    frame.colorspace, frame.color_range = SPACES["2020"], LIMITED
    frame.color_trc, frame.color_primaries = transfer, ColorPrimaries.BT2020
    return frame


@pytest.mark.parametrize(("transfer", "name"), [(ColorTrc.SMPTE2084, "PQ"), (ColorTrc.ARIB_STD_B67, "HLG")])
def test_hdr_is_tone_mapped(transfer: ColorTrc, name: Transfer, caplog: pytest.LogCaptureFixture) -> None:
    """Reference white (203 cd/m2) comes out almost white; shown flat, PQ is 147."""
    codes = [encode_light(light, name) for light in (0.0, 26.0, 203.0, 1000.0)]
    image = Converter("a.mp4").convert(ten_bit_frame(codes, transfer), pixel_aspect=Fraction(2))
    assert image.shape == (48, 2 * 64 * 4, 3)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    levels = image[24, 64::128].astype(int)
    assert np.abs(levels - np.array([0, 108, 249, 255])[:, None]).max() <= 2
    assert [record.getMessage() for record in caplog.records] == [
        f"a.mp4: is HDR ({name}), which is tone-mapped to SDR"
    ]


def test_sdr_of_the_same_primaries_is_not_tone_mapped(caplog: pytest.LogCaptureFixture) -> None:
    image = Converter("a.mp4").convert(ten_bit_frame([0.0, 0.5, 1.0], ColorTrc.BT709))
    assert np.abs(image[24, 32::64].astype(int) - np.array([0, 127, 255])[:, None]).max() <= 1
    assert caplog.records == []


def test_interlaced_video_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=64, height=48, format="yuv420p", time_base=Fraction(1, 25))
    mark, sink = graph.add("setfield", "tff"), graph.add("buffersink")
    source.link_to(mark)
    mark.link_to(sink)
    graph.configure()
    frame = av.VideoFrame(64, 48, "yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    graph.push(frame)
    marked = graph.pull()
    assert isinstance(marked, av.VideoFrame)
    converter = Converter("a.ts")
    converter.convert(marked)
    converter.convert(marked)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("a.ts: is interlaced")


@pytest.mark.parametrize("aspect", [None, Fraction(4, 3), Fraction(8, 9)])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_the_shape_of_a_pending_image_is_known_before_its_conversion(
    rotation: int, aspect: Fraction | None, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4", [number_image(n, (64, 48)) for n in range(3)], rotation=rotation)
    converter = Converter("a.mp4")
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pending = converter.defer(frame, pixel_aspect=aspect)
            assert pending.shape == pending.read().shape


def test_only_the_first_frame_of_every_kind_is_converted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[int] = []

    def count(frame: av.VideoFrame, *_: object, **__: object) -> Image:
        converted.append(frame.width)
        return to_upright_bgr(frame, VideoReformatter(), name="a test")

    monkeypatch.setattr(convert, "to_upright_bgr", count)
    converter = Converter("a.mp4")
    wide, narrow = (yuv_frame(COLOURS[0], "601", size=(width, 48)) for width in (96, 64))
    pending = [converter.defer(frame) for frame in (wide, wide, wide, narrow, narrow, wide)]
    assert converted == [96, 64, 96]
    assert [image.shape for image in pending] == [(48, width, 3) for width in (96, 96, 96, 64, 64, 96)]
    assert pending[1].read().shape == (48, 96, 3)
    assert converted == [96, 64, 96, 96]
    assert np.array_equal(pending[1].read(), pending[0].read())


def test_a_pixel_format_that_cannot_be_converted_is_an_error_before_a_stage_reads_the_image() -> None:
    converter = Converter("a.mkv")
    converter.defer(yuv_frame(COLOURS[0], "601"))
    for _ in range(2):
        with pytest.raises(SourceError, match=r"^a\.mkv: cannot be converted to BGR \(pixel format bgr4"):
            converter.defer(av.VideoFrame(320, 240, "bgr4"))
