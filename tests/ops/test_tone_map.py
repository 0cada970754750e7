"""HDR becomes SDR by the documented curve."""

import numpy as np
import pytest

from stream_seg.ops.tone_map import Transfer, tone_map

TRANSFERS: tuple[Transfer, ...] = ("PQ", "HLG")


def encode_light(light: float, transfer: Transfer) -> float:
    """Return the code, 0 to 1, of a luminance in cd/m2 by the formulas of the standards, at a system gamma of 1.2."""
    if transfer == "PQ":
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        power = (light / 10_000) ** m1
        return float(((c1 + c2 * power) / (1 + c3 * power)) ** m2)
    scene = (light / 1000) ** (1 / 1.2)
    if scene <= 1 / 12:
        return float(np.sqrt(3 * scene))
    return float(0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073)


def map_greys(lights: list[float], transfer: Transfer) -> list[int]:
    codes = np.rint([[1023 * encode_light(light, transfer) for light in lights]]).astype(np.uint16)
    image = tone_map(codes, codes, codes, transfer)
    assert (image.shape, image.dtype) == ((1, len(lights), 3), np.uint8)
    assert np.ptp(image.astype(int), axis=2).max() <= 1
    return [int(level) for level in image[0, :, 1]]


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_greys_follow_the_curve(transfer: Transfer) -> None:
    """Up to nine tenths of reference white the light is only encoded, with a gamma of 2.4."""
    lights = [0.0, 1.0, 10.0, 26.0, 100.0, 180.0]
    expected = [255 * (light / 203) ** (1 / 2.4) for light in lights]
    assert np.abs(np.array(map_greys(lights, transfer)) - expected).max() <= 2
    assert map_greys([203.0, 1000.0], transfer) in ([249, 255], [250, 255])


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_brighter_is_never_darker_and_highlights_keep_some_contrast(transfer: Transfer) -> None:
    codes = np.arange(1024, dtype=np.uint16)[None]
    levels = tone_map(codes, codes, codes, transfer)[0, :, 1].astype(int)
    assert (np.diff(levels) >= 0).all()
    assert len(set(map_greys([200.0, 250.0, 300.0, 500.0], transfer))) == 4


@pytest.mark.parametrize(
    ("rgb", "wide", "bgr"),
    [
        ((203.0, 0.0, 0.0), True, (0, 0, 255)),  # red of BT.2020 is beyond that of BT.709
        ((127.4, 14.0, 3.3), True, (0, 0, 249)),  # red of BT.709 at reference white
        ((203.0, 0.0, 0.0), False, (0, 0, 249)),
        ((0.0, 0.0, 203.0), False, (249, 0, 0)),
        ((100.0, 100.0, 100.0), True, (189, 189, 189)),
    ],
)
def test_colours_are_converted_to_the_primaries_of_bt709(
    rgb: tuple[float, float, float], wide: bool, bgr: tuple[int, int, int]
) -> None:
    red, green, blue = (np.array([[round(1023 * encode_light(light, "PQ"))]], np.uint16) for light in rgb)
    assert np.abs(tone_map(green, blue, red, "PQ", wide=wide)[0, 0].astype(int) - bgr).max() <= 12
