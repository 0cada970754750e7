"""Test the views, and that each is rendered once for all its viewers and not at all without viewers."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from queue import SimpleQueue

import cv2
import numpy as np
import pytest

from stream_seg.datasets.palettes import CAMVID
from stream_seg.types import Classes
from stream_seg.web.renderer import Renderer, ViewKey, render
from stream_seg.web.schemas import ViewSettings
from stream_seg.web.state import PageState
from tests.support.page_client import make_segmented_frame

SKY, ROAD = (CAMVID.bgr[CAMVID.index(name)].astype(float) for name in ("sky", "road"))


def draw_settings(opacity: float, *hidden: str) -> ViewSettings:
    return ViewSettings(opacity=opacity, hidden=list(hidden))


def make_renderer(state: PageState, *, max_fps: float = 30) -> tuple[Renderer, SimpleQueue[tuple[ViewKey, bytes]]]:
    """Return a renderer and the queue of its JPEGs."""
    renderer = Renderer(state, quality=90, max_width=1280, max_fps=max_fps)
    published = SimpleQueue[tuple[ViewKey, bytes]]()
    renderer.publish = lambda key, jpeg: published.put((key, jpeg))
    return renderer, published


def test_views() -> None:
    frame = make_segmented_frame(0, grey=100)
    before = frame.image.copy()
    half, none = draw_settings(0.5), draw_settings(0.5, "sky")
    assert (render(frame, "original", half) == 100).all()
    overlay = render(frame, "overlay", half)
    assert np.abs(overlay[10, 80] - (50 + SKY / 2)).max() <= 1
    assert np.abs(overlay[80, 80] - (50 + ROAD / 2)).max() <= 1
    assert (render(frame, "overlay", none)[10, 80] == 100).all()
    mask = render(frame, "mask", none)
    assert (mask[80, 80] == ROAD).all()
    assert (mask[10, 80] == 0).all()
    assert (frame.image == before).all()


def test_a_mask_contains_only_class_colours() -> None:
    mask = render(make_segmented_frame(0), "mask", draw_settings(0.5))
    assert {tuple(pixel) for pixel in mask.reshape(-1, 3).tolist()} == {tuple(SKY), tuple(ROAD)}


def test_background_is_drawn_only_in_the_mask() -> None:
    frame = make_segmented_frame(0, grey=100)
    assert frame.semantic is not None
    lane = Classes(("background", "lane"), ((9, 9, 9), (0, 255, 0)))
    semantic = replace(frame.semantic, classes=lane, label_map=np.zeros((9, 16), np.uint8))
    frame = replace(frame, semantic=semantic)
    assert (render(frame, "overlay", draw_settings(0.5)) == 100).all()
    assert (render(frame, "mask", draw_settings(0.5)) == 9).all()


def test_every_view_of_a_frame_without_classes_is_its_image() -> None:
    frame = replace(make_segmented_frame(0, grey=7), semantic=None)
    assert (render(frame, "mask", draw_settings(1)) == 7).all()


def test_a_wide_image_is_resized() -> None:
    assert render(make_segmented_frame(0), "overlay", draw_settings(1), max_width=64).shape == (36, 64, 3)


def test_a_view_is_encoded_once_for_all_viewers_and_never_without() -> None:
    state = PageState()
    renderer, published = make_renderer(state)
    renderer.start()
    try:
        for seq in range(10):
            state.put(make_segmented_frame(seq))
        with ExitStack() as viewers:
            for _ in range(5):
                viewers.enter_context(renderer.watch(("front", "overlay")))
            assert published.get(timeout=30)[0] == ("front", "overlay")
            assert published.empty()
            for seq in range(10, 13):
                state.put(make_segmented_frame(seq, grey=200))
                changed = published.get(timeout=30)[1]
            assert published.empty()
            state.settings = draw_settings(0.0)
            transparent = published.get(timeout=30)[1]
        assert np.abs(cv2.imdecode(np.frombuffer(transparent, np.uint8), 1).astype(int) - 200).max() <= 3
        assert np.abs(cv2.imdecode(np.frombuffer(changed, np.uint8), 1).astype(int) - 200).max() > 3
        state.put(make_segmented_frame(20))
        with renderer.watch(("front", "original")):  # published after the first view was left
            assert published.get(timeout=30)[0] == ("front", "original")
        assert published.empty()
    finally:
        state.close()
        renderer.join(5)


def test_an_error_while_rendering_ends_the_stage() -> None:
    state = PageState()
    renderer, _ = make_renderer(state)
    renderer.start()
    state.put(replace(make_segmented_frame(0), image=np.zeros((4, 4), np.float64)))
    with renderer.watch(("front", "overlay")):
        renderer.join(20)
    with pytest.raises(ValueError, match="image"):
        state.put(make_segmented_frame(1))


def test_a_fast_stream_is_rendered_at_most_at_max_fps() -> None:
    state = PageState()
    renderer, published = make_renderer(state, max_fps=20)
    renderer.start()
    try:
        with renderer.watch(("front", "original")):
            start_s = time.monotonic()
            for seq in range(200):
                state.put(make_segmented_frame(seq))
                state.wait(10**9, 0.005)
            seconds = time.monotonic() - start_s
        assert 3 <= published.qsize() <= 3 + 20 / 0.95 * seconds
    finally:
        state.close()
        renderer.join(5)
