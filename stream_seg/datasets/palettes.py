"""Class names and colours (red, green, blue) of public data sets, as published, and the palette of this project.

Colours are given to classes by name: `colour_classes`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from stream_seg.ops.colours import Colour, pick_colours
from stream_seg.ops.draw import BACKGROUND
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

DISTINCT = _parse_classes("""
    sky 80 165 230, building 48 60 56, pole 240 255 250, road 104 26 94, pavement 230 163 255, tree 92 154 76,
    sign 235 253 0, fence 212 131 128, car 0 56 245, pedestrian 255 8 16, bicyclist 255 141 0,
    wall 58 78 172, traffic light 255 205 113, terrain 126 255 151, truck 0 134 129, bus 0 255 255, train 186 82 250,
    motorcycle 247 2 172, bicycle 136 2 6
""")
"""The default: hues near those of Cityscapes, and road users that stand out. The first eleven are CamVid's classes.

Blended half and half with mid grey, the CIE L*a*b* distances (Delta E 1976) of CamVid's classes are at least 26 (of
CamVid's own colours 12), those of car, pedestrian and bicyclist to all others 38 (18), or 14 as a deuteranope sees
them (Machado et al., 2009). All nineteen are at least 20 apart (Cityscapes' own 7).
"""
SYNTHETIC = Classes(CAMVID.names, DISTINCT.colours[: len(CAMVID)])
"""The classes that synth://road draws, those of CamVid."""
PaletteName: TypeAlias = Literal["distinct", "camvid", "cityscapes", "voc"]
DATA_SETS = {"camvid": CAMVID, "cityscapes": CITYSCAPES, "voc": VOC}
PALETTES = {"distinct": DISTINCT, **DATA_SETS}

SYNONYMS = """
    pedestrian person people human, bicyclist rider cyclist bicycle bike, motorcycle motorbike motorcyclist,
    car vehicle automobile, truck lorry, tree vegetation, terrain grass, pavement sidewalk footpath, road street,
    sign signsymbol trafficsign, pole columnpole, aeroplane airplane, sofa couch, tvmonitor tv, pottedplant plant
"""
"""Names of one class in different data sets, without spaces, hyphens and underscores; the likeliest match first."""
_SPELLINGS = {name: group.split() for group in SYNONYMS.split(",") for name in group.split()}


def colour_classes(names: Sequence[str], palette: Classes) -> tuple[Classes, tuple[str, ...]]:
    """Return classes with the colours that a palette has for their names, and the names that it does not know.

    Each colour goes to one class: first to the class of that name, then to a synonym. The other classes get distinct
    colours. A class `background` that the palette does not know is black.
    """
    free = {_normalize(name): colour for name, colour in zip(palette.names, palette.colours, strict=True)}
    colours: dict[str, Colour] = {}
    for by_synonym in (False, True):
        for name in names:
            own = _normalize(name)
            spellings = _SPELLINGS.get(own, []) if by_synonym else [own]
            match = next((spelling for spelling in spellings if spelling in free), None)
            if name not in colours and match is not None:
                colours[name] = free.pop(match)
    if BACKGROUND in names:
        colours.setdefault(BACKGROUND, (0, 0, 0))
    unknown = tuple(name for name in names if name not in colours)
    colours |= zip(unknown, pick_colours([*colours.values()], len(unknown)), strict=True)
    return Classes(tuple(names), tuple(colours[name] for name in names)), unknown


def _normalize(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.lower())
