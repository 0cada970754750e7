"""Compare the class tables with those of the data sets' own tools; test the default palette and colours by name."""

from typing import get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.datasets.palettes import (
    CAMVID,
    CITYSCAPES,
    DISTINCT,
    PALETTES,
    SYNTHETIC,
    VOC,
    PaletteName,
    colour_classes,
)
from stream_seg.network.network import open_network
from stream_seg.ops.colours import blended_lab, pick_colours
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


ROAD_USERS = ("car", "pedestrian", "bicyclist")
# Machado, Oliveira, Fernandes 2009, deuteranopia at full severity, for linear red, green, blue.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


def distances(lab: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the distances of each colour to the others, infinity to itself."""
    between = np.linalg.norm(lab[:, None] - lab, axis=2)
    return np.asarray(np.where(np.eye(len(lab)) > 0, np.inf, between))


def seen_by_a_deuteranope(classes: Classes) -> NDArray[np.floating]:
    """Return CIE L*a*b* of colours blended into mid grey, after a simulation of the missing cones."""
    rgb = np.array(classes.colours) * 0.5 / 255 + 128 * 0.5 / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ DEUTERANOPIA.T
    linear = linear.clip(0, 1)
    seen = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(cv2.cvtColor(seen[:, None].astype(np.float32), cv2.COLOR_RGB2Lab)[:, 0])


def test_lab_is_that_of_the_standard() -> None:
    red, grey = blended_lab([(255, 0, 0), (128, 128, 128)], opacity=1.0)
    np.testing.assert_allclose(red, (53.24, 80.09, 67.2), atol=0.1)
    np.testing.assert_allclose(grey, (53.59, 0, 0), atol=0.1)


def test_no_two_classes_of_the_default_look_alike_and_road_users_stand_out() -> None:
    users = [SYNTHETIC.index(name) for name in ROAD_USERS]
    default, published = (distances(blended_lab(classes.colours)) for classes in (SYNTHETIC, CAMVID))
    assert default.min() > 25 > 13 > published.min()
    assert default[users].min() > 38 > 19 > published[users].min()
    assert default[users].min() > np.delete(default, users, axis=0).min()
    for background in (30, 220):  # at night, and before a light wall
        assert distances(blended_lab(SYNTHETIC.colours, background=background)).min() > 24
    assert distances(blended_lab(DISTINCT.colours)).min() > 20 > 8 > distances(blended_lab(CITYSCAPES.colours)).min()


def test_a_deuteranope_tells_road_users_from_all_else() -> None:
    users = [SYNTHETIC.index(name) for name in ROAD_USERS]
    assert distances(seen_by_a_deuteranope(SYNTHETIC))[users].min() > 14
    assert distances(seen_by_a_deuteranope(CAMVID))[users].min() < 8


def test_the_default_is_that_of_the_shipped_network_and_of_the_synthetic_truth() -> None:
    assert open_network("road").classes == SYNTHETIC
    assert SYNTHETIC.names == CAMVID.names
    assert colour_classes(CAMVID.names, DISTINCT) == (SYNTHETIC, ())


def test_the_names_of_palettes_are_those_of_the_table() -> None:
    assert set(get_args(PaletteName)) == set(PALETTES)


def test_classes_get_the_colours_of_their_synonyms() -> None:
    classes, unknown = colour_classes(CAMVID.names, CITYSCAPES)
    same = {"pavement": "sidewalk", "tree": "vegetation", "sign": "traffic sign", "pedestrian": "person"}
    for name, colour in zip(classes.names, classes.colours, strict=True):
        assert colour == CITYSCAPES.colours[CITYSCAPES.index({**same, "bicyclist": "rider"}.get(name, name))]
    assert unknown == ()
    spelled, unknown = colour_classes(("Sign_Symbol", "Column-Pole", "PERSON", "Bicycle"), CAMVID)
    expected = [CAMVID.colours[CAMVID.index(name)] for name in ("sign", "pole", "pedestrian", "bicyclist")]
    assert (list(spelled.colours), unknown) == (expected, ())


def test_a_colour_goes_to_one_class_and_first_to_that_of_its_name() -> None:
    classes, unknown = colour_classes(("rider", "bicycle", "bicyclist", "cyclist"), CAMVID)
    assert classes.colours[2] == CAMVID.colours[CAMVID.index("bicyclist")]
    assert unknown == ("rider", "bicycle", "cyclist")
    assert len(set(classes.colours)) == 4


@pytest.mark.parametrize("names", [VOC.names, CITYSCAPES.names, tuple(f"class {k}" for k in range(12))])
def test_unknown_classes_get_distinct_colours(names: tuple[str, ...]) -> None:
    classes, _ = colour_classes(names, DISTINCT)
    assert distances(blended_lab(classes.colours)).min() > 20
    if "background" in names:
        assert classes.colours[names.index("background")] == (0, 0, 0)


def test_as_many_colours_as_labels() -> None:
    assert len(set(pick_colours([], 255))) == 255
