"""Compare the class tables with those of the data sets' own tools."""

import numpy as np
import pytest

from stream_seg.datasets.palettes import CAMVID, CITYSCAPES, PALETTES, VOC
from stream_seg.types import Classes

# SegNet-Tutorial, Scripts/test_segmentation_camvid.py, without its unused Road_marking.
SEGNET = """Sky 128,128,128  Building 128,0,0  Pole 192,192,128  Road 128,64,128  Pavement 60,40,222  Tree 128,128,0
SignSymbol 192,128,128  Fence 64,64,128  Car 64,0,128  Pedestrian 64,64,0  Bicyclist 0,128,192"""

# cityscapesScripts, helpers/labels.py, by trainId.
CITYSCAPES_HEX = """road 804080  sidewalk f423e8  building 464646  wall 66669c  fence be9999  pole 999999
traffic_light faaa1e  traffic_sign dcdc00  vegetation 6b8e23  terrain 98fb98  sky 4682b4  person dc143c  rider ff0000
car 00008e  truck 000046  bus 003c64  train 005064  motorcycle 0000e6  bicycle 770b20"""


def voc_colour(label: int) -> tuple[int, int, int]:
    """Return a colour of VOClabelcolormap: bits 0, 1, 2 of each octal digit go to red, green, blue, lowest first."""
    rgb = [0, 0, 0]
    for digit in range(8):
        for channel in range(3):
            rgb[channel] |= ((label >> (3 * digit + channel)) & 1) << (7 - digit)
    return rgb[0], rgb[1], rgb[2]


def test_camvid_is_segnets_table() -> None:
    published = [entry.split() for line in SEGNET.splitlines() for entry in line.split("  ")]
    assert CAMVID.names == tuple(name.lower().replace("signsymbol", "sign") for name, _ in published)
    assert CAMVID.colours == tuple(tuple(map(int, colour.split(","))) for _, colour in published)


def test_cityscapes_is_the_training_table() -> None:
    words = CITYSCAPES_HEX.split()
    assert CITYSCAPES.names == tuple(name.replace("_", " ") for name in words[::2])
    assert CITYSCAPES.colours == tuple(tuple(bytes.fromhex(colour)) for colour in words[1::2])


def test_voc_spreads_the_bits() -> None:
    assert len(VOC) == 21
    assert VOC.colours == tuple(voc_colour(label) for label in range(21))
    assert (VOC.index("background"), VOC.index("person"), VOC.index("tvmonitor")) == (0, 15, 20)


@pytest.mark.parametrize("classes", PALETTES.values(), ids=PALETTES)
def test_no_two_classes_look_alike(classes: Classes) -> None:
    assert len(set(classes.colours)) == len(classes)
    assert np.array_equal(classes.bgr[: len(classes), ::-1], classes.colours)
    assert not classes.bgr[len(classes) :].any()
