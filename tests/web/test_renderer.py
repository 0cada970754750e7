"""What the views show, and that each is drawn once for all and never for nobody."""

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
from stream_seg.web.renderer import Darkroom, Quality, Settings, Watched, drawn
from stream_seg.web.state import Board
from tests.support.page_client import segmented

SKY, ROAD = (CAMVID.bgr[CAMVID.index(name)].astype(float) for name in ("sky", "road"))
QUALITY = Quality(jpeg=90, max_width=1280, max_fps=30)


def test_views() -> None:
    frame = segmented(0, grey=100)
    before = frame.image.copy()
    half, none = Settings(0.5), Settings(0.5, frozenset({"sky"}))
    assert (drawn(frame, "original", half) == 100).all()
    overlay = drawn(frame, "overlay", half)
    assert np.abs(overlay[10, 80] - (50 + SKY / 2)).max() <= 1
    assert np.abs(overlay[80, 80] - (50 + ROAD / 2)).max() <= 1
    assert (drawn(frame, "overlay", none)[10, 80] == 100).all()
    mask = drawn(frame, "mask", none)
    assert (mask[80, 80] == ROAD).all()
    assert (mask[10, 80] == 0).all()
    assert (frame.image == before).all()


def test_a_mask_has_the_colours_of_classes_and_no_others() -> None:
    mask = drawn(segmented(0), "mask", Settings(0.5))
    assert {tuple(pixel) for pixel in mask.reshape(-1, 3).tolist()} == {tuple(SKY), tuple(ROAD)}


def test_the_background_is_drawn_in_a_mask_only() -> None:
    frame = segmented(0, grey=100)
    assert frame.semantic is not None
    lane = Classes(("background", "lane"), ((9, 9, 9), (0, 255, 0)))
    semantic = replace(frame.semantic, classes=lane, verdict=np.zeros((9, 16), np.uint8))
    frame = replace(frame, semantic=semantic)
    assert (drawn(frame, "overlay", Settings(0.5)) == 100).all()
    assert (drawn(frame, "mask", Settings(0.5)) == 9).all()


def test_a_frame_without_classes_is_itself_in_every_view() -> None:
    frame = replace(segmented(0, grey=7), semantic=None)
    assert (drawn(frame, "mask", Settings(1)) == 7).all()


def test_a_wide_picture_is_narrowed() -> None:
    assert drawn(segmented(0), "overlay", Settings(1), max_width=64).shape == (36, 64, 3)


def test_a_view_is_encoded_once_for_all_and_never_for_nobody() -> None:
    board = Board()
    darkroom, published = Darkroom(board, Settings(0.5), QUALITY), SimpleQueue[tuple[Watched, bytes]]()
    darkroom.publish = lambda watched, picture: published.put((watched, picture))
    darkroom.start()
    try:
        for seq in range(10):
            board.put(segmented(seq))
        with ExitStack() as viewers:
            for _ in range(5):
                viewers.enter_context(darkroom.watching(("front", "overlay")))
            assert published.get(timeout=30)[0] == ("front", "overlay")
            assert darkroom.encoded == 1
            for seq in range(10, 13):
                board.put(segmented(seq, grey=200))
                picture = published.get(timeout=30)[1]
            assert darkroom.encoded == 4
            darkroom.settings = Settings(0.0)
            clear = published.get(timeout=30)[1]
        assert np.abs(cv2.imdecode(np.frombuffer(clear, np.uint8), 1).astype(int) - 200).max() <= 3
        assert np.abs(cv2.imdecode(np.frombuffer(picture, np.uint8), 1).astype(int) - 200).max() > 3
        board.put(segmented(20))
        with darkroom.watching(("front", "original")):  # a later view tells that the earlier one was looked after
            assert published.get(timeout=30)[0] == ("front", "original")
        assert darkroom.encoded == 6
    finally:
        board.close()
        darkroom.join(5)


def test_a_failure_while_drawing_ends_the_stage() -> None:
    board = Board()
    darkroom = Darkroom(board, Settings(0.5), QUALITY)
    darkroom.start()
    board.put(replace(segmented(0), image=np.zeros((4, 4), np.float64)))
    with darkroom.watching(("front", "overlay")):
        darkroom.join(20)
    with pytest.raises(ValueError, match="image"):
        board.put(segmented(1))


def test_a_fast_stream_is_drawn_no_oftener_than_asked_for() -> None:
    board = Board()
    darkroom = Darkroom(board, Settings(0.5), replace(QUALITY, max_fps=20))
    darkroom.start()
    try:
        with darkroom.watching(("front", "original")):
            began = time.monotonic()
            for seq in range(200):
                board.put(segmented(seq))
                board.wait(10**9, 0.005)
            seconds = time.monotonic() - began
        assert 3 <= darkroom.encoded <= 3 + 20 / 0.95 * seconds
    finally:
        board.close()
        darkroom.join(5)
