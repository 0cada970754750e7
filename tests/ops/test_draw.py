"""Test the size, legibility and position of the panels."""

import cv2
import numpy as np
import pytest

from stream_seg.datasets.palettes import CAMVID, CITYSCAPES, VOC
from stream_seg.ops.draw import (
    FONT,
    PANEL_OPACITY,
    WHITE,
    Corner,
    Measures,
    Panel,
    Sprite,
    draw_outlines,
    draw_sprite,
    render_figures,
    render_legend,
)
from stream_seg.types import Classes

ITEMS = (("29.8", "fps", "00.0"), ("41", "ms", "000"), ("0", "dropped", "0"), ("road", "openvino bf16", ""))


@pytest.mark.parametrize(("height", "width"), [(360, 640), (540, 960), (1080, 1920), (2160, 3840)])
@pytest.mark.parametrize("classes", [CAMVID, CITYSCAPES, VOC], ids=["camvid", "cityscapes", "voc"])
def test_the_legend_shows_every_colour_and_leaves_room(classes: Classes, height: int, width: int) -> None:
    sprite = render_legend(classes, height)
    panel_height, panel_width = sprite.ink.shape[:2]
    assert panel_height <= 0.55 * height
    assert panel_width <= 0.45 * width
    opaque = sprite.ink[(sprite.keep == 0).all(axis=2)]
    shown = {tuple(colour) for colour in opaque[:, ::-1].tolist()}
    assert set(classes.colours) <= shown


def test_the_legend_is_rendered_once() -> None:
    assert render_legend(CAMVID, 720) is render_legend(CAMVID, 720)
    assert render_legend(CAMVID, 720) is not render_legend(CAMVID, 360)


def test_the_line_of_figures_has_a_constant_width() -> None:
    short = (("9.8", "fps", "00.0"), ("4", "ms", "000"), *ITEMS[2:])
    one, other = render_figures(ITEMS, 720), render_figures(short, 720)
    assert one.ink.shape == other.ink.shape
    assert not np.array_equal(one.ink, other.ink)
    assert one.ink.shape[1] < 1280 / 2


@pytest.mark.parametrize("height", [120, 360, 1080])
def test_text_is_bright_on_dark(height: int) -> None:
    sprite = render_figures(ITEMS, height)
    assert sprite.ink.max() > 200
    assert np.median(sprite.keep) == round(255 * (1 - PANEL_OPACITY))
    assert np.median(sprite.ink) < 30


@pytest.mark.parametrize("height", [120, 360, 1080, 2160])
def test_no_letter_is_cut_off(height: int) -> None:
    """Text is painted on a part of the panel; the letters are those painted on all of it."""
    m = Measures(height)
    panel, whole = (Panel(4 * m.line, 20 * m.text, radius=2) for _ in range(2))
    panel.write(m, "jgQ|_f", 3 * m.text, 2 * m.line, WHITE)
    mask = np.zeros(whole.ink.shape[:2], np.uint8)
    cv2.putText(mask, "jgQ|_f", (3 * m.text, 2 * m.line), FONT, m.font_scale, 255, m.stroke, cv2.LINE_AA)
    whole._paint(mask, WHITE)
    np.testing.assert_array_equal(panel.sprite().ink, whole.sprite().ink)


def test_a_sprite_scales_and_adds() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    half = Sprite(ink=np.full((10, 20, 3), 7, np.uint8), keep=np.full((10, 20, 3), 51, np.uint8))
    draw_sprite(image, half, "top-left")
    changed = image != 200
    assert (image[changed] == 200 // 5 + 7).all()
    assert changed.sum() == 10 * 20 * 3


@pytest.mark.parametrize("corner", ["top-left", "top-right", "bottom-left", "bottom-right"])
def test_corners(corner: Corner) -> None:
    image = np.full((200, 300, 3), 255, np.uint8)
    sprite = render_figures(ITEMS[:1], 200)
    draw_sprite(image, sprite, corner)
    dark = np.argwhere(image[..., 0] < 255)
    top, left = dark.mean(axis=0) < (100, 150)
    assert (bool(top), bool(left)) == (corner.startswith("top"), corner.endswith("left"))
    only = image.copy()
    draw_sprite(image, sprite, corner, below=sprite)
    assert np.array_equal(image[only < 255], only[only < 255])
    assert (image < only).sum() == (only < 255).sum()


@pytest.mark.parametrize("size", [(4, 4), (15, 400), (300, 12)])
def test_sprites_are_clipped_to_the_image(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 255, np.uint8)
    for corner in ("top-left", "top-right", "bottom-left", "bottom-right"):
        draw_sprite(image, render_legend(VOC, size[0]), corner)


def test_outlines_are_only_at_the_edges_of_regions() -> None:
    labels = np.full((36, 48), CAMVID.index("road"), np.uint8)
    labels[10:20, 10:30] = CAMVID.index("car")
    image = np.zeros((360, 480, 3), np.uint8)
    everything = np.arange(256) < len(CAMVID)
    draw_outlines(image, labels, CAMVID.bgr, visible=everything)
    inside, outside, frame = image[120:180, 120:280], image[:80, :80], image[[0, -1]]
    assert not inside.any()
    assert not outside.any()
    assert not frame.any(), "the edge of the image is no edge of a region"
    assert image[100:110, 200].any()
    untouched = np.zeros_like(image)
    draw_outlines(untouched, labels, CAMVID.bgr, visible=~everything)
    assert not untouched.any()
