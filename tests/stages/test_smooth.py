from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_seg.classes import Classes
from stream_seg.errors import ConfigError
from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.stages.smooth import Smooth
from tests.drawn import frame

CLASSES = Classes(("road", "car"), ((0, 0, 0), (255, 0, 0)))
ENGINE = EngineInfo("stub", "numpy", "f32", "cpu")


def scored(seq: int, road: float, *, stream: str = "camera", size: tuple[int, int] = (2, 3)) -> Frame:
    scores = np.stack([np.full(size, road, np.float32), np.full(size, 0.5, np.float32)])
    return replace(frame(seq, stream=stream), semantic=Semantic(CLASSES, ENGINE, (4, 6), scores))


def roads(frames: list[Frame], **keys: float) -> list[float]:
    return [float(f.semantic.scores[0, 0, 0]) for f in Smooth(**keys)(iter(frames))]  # type: ignore[union-attr, index]


def test_scores_are_averaged_over_time() -> None:
    averaged = roads([scored(0, 1), scored(1, 0), scored(2, 0)], weight=0.4)
    np.testing.assert_allclose(averaged, [1, 0.4, 0.16], rtol=1e-6)


def test_one_flickering_frame_does_not_change_the_labels() -> None:
    flicker = [scored(0, 1), scored(1, 0.3), scored(2, 1)]
    steady = [f.semantic.labels[0, 0] for f in Smooth(weight=0.4)(iter(flicker))]  # type: ignore[union-attr]
    raw = [f.semantic.labels[0, 0] for f in Smooth(weight=0)(iter(flicker))]  # type: ignore[union-attr]
    assert steady == [0, 0, 0]
    assert raw == [0, 1, 0]


UNRELATED = {"gap": scored(40, 0), "back": scored(0, 0), "shape": scored(1, 0, size=(4, 6))}


@pytest.mark.parametrize("second", UNRELATED.values(), ids=UNRELATED.keys())
def test_the_past_is_forgotten_where_it_says_nothing(second: Frame) -> None:
    assert roads([scored(0, 1), second], weight=0.4) == [1, 0]


def test_a_short_drop_is_no_gap() -> None:
    assert roads([scored(0, 1), scored(5, 0)], weight=0.4)[1] == pytest.approx(0.4)


def test_streams_do_not_mix() -> None:
    frames = [scored(0, 1, stream="front"), scored(0, 0, stream="rear"), scored(1, 1, stream="front")]
    assert roads(frames, weight=0.4) == [1, 0, 1]


def test_the_scores_that_came_are_left_alone() -> None:
    first, second = scored(0, 1), scored(1, 0)
    list(Smooth(weight=0.4)(iter([first, second])))
    assert second.semantic is not None
    assert second.semantic.scores is not None
    assert not second.semantic.scores[0].any()


def test_frames_without_scores_are_refused() -> None:
    with pytest.raises(ConfigError, match="segment stage before"):
        list(Smooth()(iter([frame(0)])))
    labelled = Semantic(CLASSES, ENGINE, (4, 6), verdict=np.zeros((4, 6), np.uint8))
    verdict = replace(frame(0), semantic=labelled)
    with pytest.raises(ConfigError, match="leave smooth out"):
        list(Smooth()(iter([verdict])))
