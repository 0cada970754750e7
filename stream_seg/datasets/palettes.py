"""Class names and colours (red, green, blue) of public data sets, as published, in the order of the labels."""

from __future__ import annotations

from stream_seg.types import Classes


def _parse_classes(table: str) -> Classes:
    """Return the classes of a table of `name red green blue`, separated by commas."""
    names, colours = [], []
    for entry in table.split(","):
        name, red, green, blue = entry.strip().rsplit(" ", 3)
        names.append(name)
        colours.append((int(red), int(green), int(blue)))
    return Classes(tuple(names), tuple(colours))


CAMVID = _parse_classes("""
    sky 128 128 128, building 128 0 0, pole 192 192 128, road 128 64 128, pavement 60 40 222, tree 128 128 0,
    sign 192 128 128, fence 64 64 128, car 64 0 128, pedestrian 64 64 0, bicyclist 0 128 192
""")
"""CamVid, the 11 classes of SegNet (Badrinarayanan et al., PAMI 2017); its own label 11 is void."""
CITYSCAPES = _parse_classes("""
    road 128 64 128, sidewalk 244 35 232, building 70 70 70, wall 102 102 156, fence 190 153 153, pole 153 153 153,
    traffic light 250 170 30, traffic sign 220 220 0, vegetation 107 142 35, terrain 152 251 152, sky 70 130 180,
    person 220 20 60, rider 255 0 0, car 0 0 142, truck 0 0 70, bus 0 60 100, train 0 80 100, motorcycle 0 0 230,
    bicycle 119 11 32
""")
"""Cityscapes, the 19 training classes (Cordts et al., CVPR 2016; cityscapesScripts, helpers/labels.py)."""
VOC = _parse_classes("""
    background 0 0 0, aeroplane 128 0 0, bicycle 0 128 0, bird 128 128 0, boat 0 0 128, bottle 128 0 128,
    bus 0 128 128, car 128 128 128, cat 64 0 0, chair 192 0 0, cow 64 128 0, diningtable 192 128 0, dog 64 0 128,
    horse 192 0 128, motorbike 64 128 128, person 192 128 128, pottedplant 0 64 0, sheep 128 64 0, sofa 0 192 0,
    train 128 192 0, tvmonitor 0 64 128
""")
"""Pascal VOC 2012, background and 20 objects; colours spread the label's bits (VOCdevkit, VOClabelcolormap)."""

PALETTES = {"camvid": CAMVID, "cityscapes": CITYSCAPES, "voc": VOC}
