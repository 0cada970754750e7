"""Test the pixels that `overlay` draws, the images that it draws on, and its figures."""

import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from stream_seg.datasets.palettes import CAMVID, CITYSCAPES, VOC
from stream_seg.errors import ConfigError
from stream_seg.frame import EngineInfo, Frame, Semantic, Temporal
from stream_seg.ops.draw import Sprite, render_figures
from stream_seg.stages.overlay import Overlay, StreamFigures
from stream_seg.types import Classes, Labels

ENGINE = EngineInfo("road", "openvino", "bf16", "CPU")
CAR, ROAD, SKY = (CAMVID.index(name) for name in ("car", "road", "sky"))
MS = 1_000_000
BARE: dict[str, Any] = {"legend": False, "hud": False}


def labels() -> Labels:
    """Return labels: sky above, road below, void at the right, a car in the middle."""
    label_map = np.full((36, 48), SKY, np.uint8)
    label_map[18:] = ROAD
    label_map[:, 40:] = 255
    label_map[14:22, 20:28] = CAR
    return label_map


def frames(count: int = 1, *, classes: Classes = CAMVID, size: tuple[int, int] = (180, 240)) -> Iterator[Frame]:
    semantic = Semantic(classes, ENGINE, (36, 48), label_map=labels())
    for seq in range(count):
        image = np.full((*size, 3), 100, np.uint8)
        yield Frame("front", seq, seq, Fraction(1, 25), 0, image, semantic)


def draw(classes: Classes = CAMVID, **settings: Any) -> np.ndarray:
    return next(Overlay(**settings)(frames(classes=classes))).image


def test_colours_each_class_and_leaves_void() -> None:
    image = draw(opacity=0.25, **BARE)
    assert np.abs(image[20, 20] - (75 + CAMVID.bgr[SKY] / 4)).max() <= 0.5
    assert np.abs(image[90, 120] - (75 + CAMVID.bgr[CAR] / 4)).max() <= 0.5
    assert (image[:, 210:] == 100).all()


def test_opacity_per_class() -> None:
    image = draw(opacities={"car": 1, "sky": 0}, **BARE)
    assert (image[90, 120] == CAMVID.bgr[CAR]).all()
    assert (image[20, 20] == 100).all()
    assert (image[170, 20] != 100).any()


def test_a_class_with_opacity_0_has_no_outline_and_no_legend_entry() -> None:
    assert (draw(opacity=0, contours=True, **BARE) == 100).all()
    assert Overlay(opacities={"car": 0, "sky": 0}).style(CAMVID).legend.names == tuple(
        name for name in CAMVID.names if name not in ("car", "sky")
    )


def test_only_the_named_classes_are_drawn_and_in_the_legend() -> None:
    image = next(Overlay(opacity=1, contours=True, classes=["car", "pole"], **BARE)(frames())).image
    assert (image[90, 120] == CAMVID.bgr[CAR]).all()
    assert (image[20, 20] == 100).all()
    assert (image[170, 20] == 100).all()
    assert Overlay(classes=["car", "pole"]).style(CAMVID).legend.names == ("pole", "car")
    assert Overlay(classes=["car", "sky"], opacities={"sky": 0}).style(CAMVID).legend.names == ("car",)
    lane = Classes(("background", "lane"), ((0, 0, 0), (0, 255, 0)))
    assert Overlay(classes=["background"]).style(lane).legend.names == ("background",)


def test_background_is_not_drawn_by_default() -> None:
    lane = Classes(("background", "lane"), ((0, 0, 0), (0, 255, 0)))
    semantic = Semantic(lane, ENGINE, (36, 48), label_map=np.zeros((36, 48), np.uint8))
    frame = replace(next(frames()), semantic=semantic)
    frame.image.flags.writeable = False
    assert (next(Overlay(**BARE)(iter([frame]))).image == 100).all()
    assert (next(Overlay(opacities={"background": 1}, **BARE)(iter([frame]))).image == 0).all()


@pytest.mark.parametrize("colour", ["#10fF30", [16, 255, 48], (16, 255, 48)])
def test_custom_colours(colour: Any) -> None:
    image = draw(opacity=1, colours={"car": colour}, **BARE)
    assert image[90, 120].tolist() == [48, 255, 16]
    assert (image[20, 20] == CAMVID.bgr[SKY]).all()


@pytest.mark.parametrize("colour", ["red", "#12345", "10ff30", [1, 2], [1, 2, 256], [1, 2, -1], [1, 2, 3.5], 7, None])
def test_a_bad_colour_is_refused_at_once(colour: Any) -> None:
    with pytest.raises(ValidationError, match=r"'#rrggbb' or \[red, green, blue\], 0 to 255"):
        Overlay(colours={"car": colour})


@pytest.mark.parametrize("setting", [{"opacity": 1.1}, {"opacities": {"car": -1}}, {"legend": "middle"}, {"alpha": 1}])
def test_a_bad_setting_is_refused_at_once(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Overlay(**setting)


@pytest.mark.parametrize(
    ("setting", "value"), [("opacities", {"lorry": 1}), ("colours", {"lorry": "#000000"}), ("classes", ["lorry"])]
)
def test_an_unknown_class_is_refused_with_the_known_ones(setting: str, value: Any) -> None:
    stage = Overlay(**{setting: value})
    with pytest.raises(ConfigError, match=f"overlay.{setting}: unknown class 'lorry'; the classes are sky, building"):
        next(stage(frames()))


def test_soft_and_contours_change_only_the_edges() -> None:
    soft = draw(opacity=1, **BARE)
    for other in (draw(opacity=1, soft=False, **BARE), draw(opacity=1, contours=True, **BARE)):
        different = (soft != other).any(axis=2)
        assert different.any()
        assert not different[100:104, 110:130].any()
        assert not different[:60, :60].any()


def test_draws_in_place_on_a_writeable_image() -> None:
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


def test_the_legend_is_in_its_corner() -> None:
    bare = draw(**BARE)
    for corner, rows, columns in (("top-right", 0, 1), ("bottom-left", 1, 0)):
        size: dict[str, Any] = {"size": (480, 640)}
        image, bare_image = (
            next(Overlay(legend=legend, hud=False)(frames(**size))).image for legend in (corner, False)
        )
        center = np.argwhere((image != bare_image).any(axis=2)).mean(axis=0) / (480, 640)
        assert np.abs(center - (rows, columns)).max() < 0.45
    assert np.array_equal(draw(legend=True, hud=False), draw(legend="top-right", hud=False))
    assert not np.array_equal(draw(legend=True, hud=False), bare)


def test_in_the_top_left_corner_the_legend_is_below_the_figures() -> None:
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
        return next(Overlay(legend=legend, **settings)(frames(classes=white, size=(height, width)))).image

    figures, both = image(False), image(legend)
    assert both.min() == figures.min()  # overlapping panels would be darker
    changed = (both != 100).any(axis=2)
    bottom = int(np.argwhere(figures != 100).max(axis=0)[0])
    assert (changed[bottom + 1].any(), changed[bottom + 2 :].any()) == (place == "beside", place is not None)
    assert not changed[bottom + 1 :, [0, -1]].any()  # the legend is complete


def test_a_frame_without_classes_gets_only_the_figures() -> None:
    frame = replace(next(frames(size=(360, 640))), semantic=None)
    image = next(Overlay()(iter([frame]))).image
    changed = np.argwhere((image != 100).any(axis=2))
    assert len(changed)
    assert changed.max(axis=0)[0] < 50
    bare = replace(next(frames()), semantic=None)
    assert (next(Overlay(hud=False)(iter([bare]))).image == 100).all()


def test_other_fields_of_a_frame_stay() -> None:
    inputs = list(frames(5))
    for before, after in zip(inputs, Overlay()(iter(inputs)), strict=True):
        assert replace(after, image=before.image) == before


def test_classes_may_change_between_frames() -> None:
    first, second = next(frames()), next(frames(classes=CITYSCAPES))
    images = [frame.image for frame in Overlay(opacity=1, **BARE)(iter([first, second]))]
    assert (images[0][90, 120] == CAMVID.bgr[CAR]).all()
    assert (images[1][90, 120] == CITYSCAPES.bgr[CAR]).all()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Return the list of rendered figures, {unit: value}, oldest first."""
    rendered: list[dict[str, str]] = []

    def render(items: tuple[tuple[str, str, str], ...], height: int) -> Sprite:
        rendered.append({unit: value for value, unit, _ in items})
        return render_figures(items, height)

    monkeypatch.setattr("stream_seg.ops.draw.render_figures", render)
    return rendered


def render_frames(seqs: list[int], *, step_ms: int, latency_ms: int) -> None:
    """Render the figures of frames that arrive every `step_ms`."""
    stream, frame = StreamFigures(), next(frames())
    for i, seq in enumerate(seqs):
        now_ns = (1 + i) * step_ms * MS
        current = replace(frame, seq=seq, captured_ns=now_ns - latency_ms * MS)
        stream.losses.add(seq)
        stream.render(current, now_ns)


def test_figures(shown: list[dict[str, str]]) -> None:
    render_frames(list(range(60)), step_ms=40, latency_ms=38)
    assert shown[-1] == {"fps": "25.0", "ms": "38", "dropped": "0", "openvino bf16": "road"}
    render_frames([7, 8, 10, 15], step_ms=2000, latency_ms=1500)
    assert (shown[-1]["fps"], shown[-1]["ms"], shown[-1]["dropped"]) == ("0.5", "1500", "5")


def test_fps_cover_the_last_second(shown: list[dict[str, str]]) -> None:
    stream, frame, now_ns = StreamFigures(), next(frames()), 0
    for seq, step_ms in enumerate([200] * 30 + [40] * 30):
        now_ns += step_ms * MS
        stream.render(replace(frame, seq=seq), now_ns)
    assert shown[-1]["fps"] == "25.0"


def test_the_line_is_rendered_four_times_a_second() -> None:
    stream, frame = StreamFigures(), next(frames())
    lines = [stream.render(replace(frame, seq=i), 10**9 + i * 10 * MS) for i in range(100)]
    assert len({id(line) for line in lines}) == 4


def test_streams_do_not_share_figures() -> None:
    frame = next(frames(size=(360, 640)))
    assert frame.semantic is not None
    long = replace(frame.semantic, engine=replace(ENGINE, network="a network with a longer name"))
    both = [
        replace(frame, image=frame.image.copy(), captured_ns=time.monotonic_ns()),
        replace(frame, stream="rear", semantic=long, image=frame.image.copy(), captured_ns=time.monotonic_ns()),
    ]
    images = [frame.image for frame in Overlay(opacity=0, legend=False)(iter(both))]
    widths = [np.argwhere((image != 100).any(axis=2)).max(axis=0)[1] for image in images]
    assert widths[1] > widths[0] + 50


def test_the_line_shows_the_age_of_the_labels_and_the_quality_level(shown: list[dict[str, str]]) -> None:
    stream, frame = StreamFigures(), next(frames())
    temporals = (None, Temporal(), Temporal(key=False, age=3, quality_level=2), Temporal())
    for second, temporal in enumerate(temporals):
        stream.render(replace(frame, temporal=temporal), second * 10**9)
    for figures in shown[:2]:
        assert not {"frame", "quality level"} & figures.keys()
    assert (shown[2]["frame"], shown[2]["quality level"]) == ("+3", "2")
    assert (shown[3]["frame"], shown[3]["quality level"]) == ("key", "0")
