"""What `overlay` draws, on whose pixels, and the figures it shows."""

import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from pydantic import ValidationError

from stream_seg.datasets.palettes import CAMVID, CITYSCAPES, PALETTES, VOC
from stream_seg.errors import ConfigError
from stream_seg.frame import EngineInfo, Frame, Semantic, Temporal
from stream_seg.stages.overlay import Overlay, Readings
from stream_seg.types import Classes, Labels

ENGINE = EngineInfo("road", "openvino", "bf16", "CPU")
CAR, ROAD, SKY = (CAMVID.index(name) for name in ("car", "road", "sky"))
MS = 1_000_000
BARE: dict[str, Any] = {"legend": False, "hud": False}


def labels() -> Labels:
    """Sky above, road below, void at the right, a car in the middle."""
    map_ = np.full((36, 48), SKY, np.uint8)
    map_[18:] = ROAD
    map_[:, 40:] = 255
    map_[14:22, 20:28] = CAR
    return map_


def frames(count: int = 1, *, classes: Classes = CAMVID, size: tuple[int, int] = (180, 240)) -> Iterator[Frame]:
    semantic = Semantic(classes, ENGINE, (36, 48), verdict=labels())
    for seq in range(count):
        image = np.full((*size, 3), 100, np.uint8)
        yield Frame("front", seq, seq, Fraction(1, 25), 0, image, semantic)


def drawn(classes: Classes = CAMVID, **settings: Any) -> np.ndarray:
    return next(Overlay(**settings)(frames(classes=classes))).image


def test_colours_each_class_and_leaves_void() -> None:
    image = drawn(opacity=0.25, **BARE)
    assert np.abs(image[20, 20] - (75 + CAMVID.bgr[SKY] / 4)).max() <= 0.5
    assert np.abs(image[90, 120] - (75 + CAMVID.bgr[CAR] / 4)).max() <= 0.5
    assert (image[:, 210:] == 100).all()


def test_opacity_per_class() -> None:
    image = drawn(opacities={"car": 1, "sky": 0}, **BARE)
    assert (image[90, 120] == CAMVID.bgr[CAR]).all()
    assert (image[20, 20] == 100).all()
    assert (image[170, 20] != 100).any()


def test_a_class_that_is_not_drawn_has_no_outline_and_no_line_in_the_legend() -> None:
    assert (drawn(opacity=0, contours=True, **BARE) == 100).all()
    assert Overlay(opacities={"car": 0, "sky": 0}).look(CAMVID).legend.names == tuple(
        name for name in CAMVID.names if name not in ("car", "sky")
    )


def test_background_is_not_drawn_unless_asked_for() -> None:
    lane = Classes(("background", "lane"), ((0, 0, 0), (0, 255, 0)))
    semantic = Semantic(lane, ENGINE, (36, 48), verdict=np.zeros((36, 48), np.uint8))
    frame = replace(next(frames()), semantic=semantic)
    frame.image.flags.writeable = False
    assert (next(Overlay(**BARE)(iter([frame]))).image == 100).all()
    assert (next(Overlay(opacities={"background": 1}, **BARE)(iter([frame]))).image == 0).all()


@pytest.mark.parametrize("colour", ["#10fF30", [16, 255, 48], (16, 255, 48)])
def test_own_colours(colour: Any) -> None:
    image = drawn(opacity=1, colours={"car": colour}, **BARE)
    assert image[90, 120].tolist() == [48, 255, 16]
    assert (image[20, 20] == CAMVID.bgr[SKY]).all()


@pytest.mark.parametrize("colour", ["red", "#12345", "10ff30", [1, 2], [1, 2, 256], [1, 2, -1], [1, 2, 3.5], 7, None])
def test_a_bad_colour_is_refused_at_once(colour: Any) -> None:
    with pytest.raises(ValidationError, match=r"'#rrggbb' or \[red, green, blue\], 0 to 255"):
        Overlay(colours={"car": colour})


@pytest.mark.parametrize(
    "setting", [{"opacity": 1.1}, {"opacities": {"car": -1}}, {"palette": "ade"}, {"legend": "middle"}, {"alpha": 1}]
)
def test_a_bad_setting_is_refused_at_once(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Overlay(**setting)


@pytest.mark.parametrize("setting", ["opacities", "colours"])
def test_an_unknown_class_is_refused_with_the_known_ones(setting: str) -> None:
    stage = Overlay(**{setting: {"lorry": 1 if setting == "opacities" else "#000000"}})
    with pytest.raises(ConfigError, match=f"overlay.{setting}: unknown class 'lorry'; the classes are sky, building"):
        next(stage(frames()))


def test_palette_by_name() -> None:
    assert set(get_args(get_args(get_type_hints(Overlay)["palette"])[0])) == set(PALETTES)
    grey = Classes(CAMVID.names, ((9, 9, 9),) * len(CAMVID))
    assert (drawn(grey, opacity=1, **BARE)[90, 120] == 9).all()
    assert (drawn(grey, opacity=1, palette="camvid", **BARE)[90, 120] == CAMVID.bgr[CAR]).all()
    with pytest.raises(ConfigError, match=r"overlay\.palette: cityscapes has 19 classes .* the network has 11"):
        drawn(palette="cityscapes")


def test_soft_and_contours_change_only_the_edges() -> None:
    soft = drawn(opacity=1, **BARE)
    for other in (drawn(opacity=1, soft=False, **BARE), drawn(opacity=1, contours=True, **BARE)):
        different = (soft != other).any(axis=2)
        assert different.any()
        assert not different[100:104, 110:130].any()
        assert not different[:60, :60].any()


def test_draws_in_place_where_it_may() -> None:
    own = next(frames())
    assert next(Overlay()(iter([own]))).image is own.image
    shared = next(frames())
    shared.image.flags.writeable = False
    strided = replace(shared, image=np.full((180, 480, 3), 100, np.uint8)[:, ::2])
    for frame in (shared, strided):
        result = next(Overlay()(iter([frame]))).image
        assert (frame.image == 100).all()
        assert (result != 100).any()
        assert np.array_equal(result[150:], own.image[150:])


def test_the_legend_stands_in_its_corner() -> None:
    bare = drawn(**BARE)
    for corner, rows, columns in (("top-right", 0, 1), ("bottom-left", 1, 0)):
        size: dict[str, Any] = {"size": (480, 640)}
        with_, without = (next(Overlay(legend=legend, hud=False)(frames(**size))).image for legend in (corner, False))
        centre = np.argwhere((with_ != without).any(axis=2)).mean(axis=0) / (480, 640)
        assert np.abs(centre - (rows, columns)).max() < 0.45
    assert np.array_equal(drawn(legend=True, hud=False), drawn(legend="top-right", hud=False))
    assert not np.array_equal(drawn(legend=True, hud=False), bare)


def test_in_the_top_left_corner_the_legend_stands_below_the_figures() -> None:
    def lowest(*, hud: bool) -> int:
        image = next(
            Overlay(opacity=0, opacities={"car": 0.01}, legend="top-left", hud=hud)(frames(size=(360, 640)))
        ).image
        return int(np.argwhere(image[..., 0] < 70).max(axis=0)[0])

    assert lowest(hud=True) > lowest(hud=False)


@pytest.mark.parametrize(
    ("width", "height", "classes", "legend", "place"),
    [
        (960, 540, CAMVID, True, "beside"),
        (960, 540, VOC, "bottom-left", "below"),
        (480, 360, CAMVID, True, "below"),
        (480, 360, VOC, True, "below"),
        (480, 360, VOC, "bottom-right", "below"),
        (320, 240, CAMVID, True, "below"),
        (320, 240, CAMVID, "top-left", "below"),
        (360, 640, CAMVID, True, "below"),
        (2000, 60, CAMVID, "bottom-right", "beside"),
        (2000, 60, CAMVID, "bottom-left", None),
        (160, 120, CAMVID, True, None),
        (160, 120, CAMVID, "bottom-left", None),
    ],
)
def test_the_legend_covers_no_figures(
    width: int, height: int, classes: Classes, legend: Any, place: str | None
) -> None:
    white = Classes(classes.names, ((255, 255, 255),) * len(classes))

    def image(legend: Any) -> np.ndarray:
        settings: dict[str, Any] = {"opacity": 0.001, "opacities": {"background": 0.001} if classes is VOC else {}}
        given = frames(classes=white, size=(height, width))
        return next(Overlay(legend=legend, **settings)(given)).image

    figures, both = image(False), image(legend)
    assert both.min() == figures.min()  # where two panels overlap it is darker
    changed = (both != 100).any(axis=2)
    bottom = int(np.argwhere(figures != 100).max(axis=0)[0])
    assert (changed[bottom + 1].any(), changed[bottom + 2 :].any()) == (place == "beside", place is not None)
    assert not changed[bottom + 1 :, [0, -1]].any()  # it stands there whole


def test_a_frame_without_classes_gets_the_figures_only() -> None:
    frame = replace(next(frames(size=(360, 640))), semantic=None)
    image = next(Overlay()(iter([frame]))).image
    changed = np.argwhere((image != 100).any(axis=2))
    assert len(changed)
    assert changed.max(axis=0)[0] < 50
    bare = replace(next(frames()), semantic=None)
    assert (next(Overlay(hud=False)(iter([bare]))).image == 100).all()


def test_every_frame_comes_out_with_all_it_had() -> None:
    given = list(frames(5))
    for before, after in zip(given, Overlay()(iter(given)), strict=True):
        assert replace(after, image=before.image) == before


def test_classes_may_change_between_frames() -> None:
    first, second = next(frames()), next(frames(classes=CITYSCAPES))
    images = [frame.image for frame in Overlay(opacity=1, **BARE)(iter([first, second]))]
    assert (images[0][90, 120] == CAMVID.bgr[CAR]).all()
    assert (images[1][90, 120] == CITYSCAPES.bgr[CAR]).all()


def figures(*, seqs: list[int], step_ms: int, latency_ms: int) -> dict[str, str]:
    """What is shown after frames that arrive every `step_ms`."""
    readings, given = Readings(), next(frames())
    for i, seq in enumerate(seqs):
        now_ns = (1 + i) * step_ms * MS
        readings.sprite(replace(given, seq=seq, captured_ns=now_ns - latency_ms * MS), now_ns)
    readings.latencies.append(latency_ms * MS)
    return {unit: value for value, unit, _ in readings.items(given)}


def test_figures() -> None:
    assert figures(seqs=list(range(60)), step_ms=40, latency_ms=38) == {
        "fps": "25.0",
        "ms": "38",
        "dropped": "0",
        "openvino bf16": "road",
    }
    slow = figures(seqs=[7, 8, 10, 15], step_ms=2000, latency_ms=1500)
    assert (slow["fps"], slow["ms"], slow["dropped"]) == ("0.5", "1500", "5")


def test_fps_are_of_the_last_second() -> None:
    readings, given, now_ns = Readings(), next(frames()), 0
    for seq, step_ms in enumerate([200] * 30 + [40] * 30):
        now_ns += step_ms * MS
        readings.sprite(replace(given, seq=seq), now_ns)
    readings.latencies.append(MS)
    assert readings.items(given)[0][:2] == ("25.0", "fps")


def test_the_line_is_drawn_anew_four_times_a_second() -> None:
    readings, given = Readings(), next(frames())
    lines = [readings.sprite(replace(given, seq=i), 10**9 + i * 10 * MS) for i in range(100)]
    assert len({id(line) for line in lines}) == 4


def test_streams_do_not_share_figures() -> None:
    given = next(frames(size=(360, 640)))
    assert given.semantic is not None
    long = replace(given.semantic, engine=replace(ENGINE, network="a network with a longer name"))
    both = [
        replace(given, image=given.image.copy(), captured_ns=time.monotonic_ns()),
        replace(given, stream="rear", semantic=long, image=given.image.copy(), captured_ns=time.monotonic_ns()),
    ]
    images = [frame.image for frame in Overlay(opacity=0, legend=False)(iter(both))]
    widths = [np.argwhere((image != 100).any(axis=2)).max(axis=0)[1] for image in images]
    assert widths[1] > widths[0] + 50


def test_the_line_says_how_old_the_classes_are_and_how_far_the_stage_stepped_down() -> None:
    readings, given = Readings(), next(frames())

    def shown(temporal: Temporal | None) -> dict[str, str]:
        readings.sprite(replace(given, temporal=temporal), 10**9)
        readings.latencies.append(MS)
        return {unit: value for value, unit, _ in readings.items(replace(given, temporal=temporal))}

    for nothing in (None, Temporal()):
        assert not {"frame", "rung"} & shown(nothing).keys()
    carried = shown(Temporal(key=False, age=3, rung=2))
    assert (carried["frame"], carried["rung"]) == ("+3", "2")
    again = shown(Temporal())
    assert (again["frame"], again["rung"]) == ("key", "0")
