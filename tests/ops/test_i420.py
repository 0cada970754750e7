"""Compare the fixed-point conversion to 4:2:0 with floating point and with FFmpeg's swscale."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from stream_seg.ops import i420
from stream_seg.ops.i420 import convert_to_i420
from stream_seg.types import Image
from tests.support.clips import number_image

RNG = np.random.default_rng(0)
Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
IMAGES = {
    "noise": RNG.integers(0, 256, (38, 66, 3), np.uint8),
    "corners of the colour cube": (RNG.integers(0, 2, (64, 64, 3)) * 255).astype(np.uint8),
    "areas": number_image(1234, (320, 240)),
    "the smallest": RNG.integers(0, 256, (2, 2, 3), np.uint8),
    "odd sides": RNG.integers(0, 256, (9, 13, 3), np.uint8),
    "rows with a gap": RNG.integers(0, 256, (8, 40, 3), np.uint8)[:, :22],
    "mirrored": RNG.integers(0, 256, (8, 22, 3), np.uint8)[::-1, ::-1],
}


def convert(image: Image, *, padding: int = 0) -> Planes:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    y, u, v = (np.full((n * height, n * width + padding), 7, np.uint8) for n in (2, 1, 1))
    convert_to_i420(image, y, u, v)
    return y, u, v


def convert_float(image: Image) -> list[NDArray[np.float64]]:
    """ITU-R BT.709, 3.2 to 3.5: the planes before rounding."""
    blue, green, red = np.moveaxis(image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2] / 255, 2, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    chroma = [(blue - luma) / 1.8556, (red - luma) / 1.5748]
    means = [c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)) for c in chroma]
    return [16 + 219 * luma, *(128 + 224 * mean for mean in means)]


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_is_within_half_a_level_of_floating_point(image: Image) -> None:
    for plane, exact in zip(convert(image), convert_float(image), strict=True):
        assert np.abs(plane - exact).max() < 0.51


@pytest.mark.parametrize("name", ["noise", "areas"])
def test_is_within_two_levels_of_swscale(name: str) -> None:
    """swscale rounds twice, and is up to 1.4 levels from the exact value."""
    source = av.VideoFrame.from_numpy_buffer(IMAGES[name], format="bgr24")
    keys = {"dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.MPEG}
    other = source.reformat(format="yuv420p", **keys)  # type: ignore[arg-type]
    for plane, expected in zip(convert(IMAGES[name]), other.planes, strict=True):
        rows = np.frombuffer(memoryview(expected), np.uint8).reshape(expected.height, -1)[:, : expected.width]
        difference = plane - rows.astype(float)
        assert np.abs(difference).max() <= 2
        assert 10 * np.log10(255**2 / max((difference**2).mean(), 1e-9)) > 48


def test_greys_have_no_chroma_and_the_limited_range() -> None:
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(2, 0).repeat(2, 1)[..., None].repeat(3, 2)
    y, u, v = convert(greys)
    assert (y[0, 0], y[-1, -1]) == (16, 235)
    assert (np.diff(y[::2, ::2].ravel().astype(int)) >= 0).all()
    assert {*u.ravel(), *v.ravel()} == {128}


def test_columns_beyond_the_image_are_not_written() -> None:
    image = IMAGES["noise"]
    for plane, padded in zip(convert(image), convert(image, padding=5), strict=True):
        assert (padded[:, :-5] == plane).all()
        assert (padded[:, -5:] == 7).all()


def test_an_image_that_is_shared_needs_no_compilation_of_its_own() -> None:
    image = IMAGES["noise"].copy()
    convert(image)
    image.flags.writeable = False
    convert(image)
    assert len(i420._convert.signatures) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (np.zeros((8, 8), np.uint8), "image"),
        (np.zeros((8, 8, 4), np.uint8), "image"),
        (np.zeros((8, 8, 3), np.float32), "image"),
        (np.zeros((6, 8, 3), np.uint8), "y"),
        (np.zeros((8, 10, 3), np.uint8), "y"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(image: Image, name: str) -> None:
    planes = [np.zeros((n, n), np.uint8) for n in (8, 4, 4)]
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        convert_to_i420(image, *planes)
    with pytest.raises(ValueError, match=r"^v: expected C-contiguous uint8, 4 rows of 4 or more, got uint8 \(4, 2\)"):
        convert_to_i420(np.zeros((8, 8, 3), np.uint8), *planes[:2], planes[2][:, ::2])
