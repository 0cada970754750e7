"""`smooth`: the average of scores along the motion, and its resets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stream_seg.errors import ConfigError
from stream_seg.frame import (
    RESETS,
    EngineInfo,
    Frame,
    FrameMotion,
    ReferenceScores,
    Reset,
    Semantic,
    Temporal,
    WarpedScores,
)
from stream_seg.keyframes.keyframes import KeyFrames
from stream_seg.ops.motion import SIZE
from stream_seg.ops.scores import SURE
from stream_seg.stages.smooth import Smooth
from stream_seg.types import Classes, Image
from tests.support.frames import make_frame
from tests.support.noisy_scores import filter_labels, noisy_drive, smooth

CLASSES = Classes(("road", "car"), ((0, 0, 0), (255, 0, 0)))
ENGINE = EngineInfo("stub", "numpy", "f32", "cpu")


def scored(seq: int, road: float, *, stream: str = "camera", size: tuple[int, int] = (2, 3)) -> Frame:
    """Return a frame of one colour whose pixels have the score `road` for road and 0.5 for car."""
    scores = np.stack([np.full(size, road, np.float32), np.full(size, 0.5, np.float32)])
    return replace(make_frame(seq, stream=stream), semantic=Semantic(CLASSES, ENGINE, (4, 6), scores))


def roads(frames: list[Frame], **keys: float) -> list[float]:
    return [float(f.semantic.scores[0, 0, 0]) for f in Smooth(**keys)(iter(frames))]  # type: ignore[union-attr, index]


def share(road: float, weight: float) -> float:
    """Return the share of the past at full confidence, where the network gives the scores `road` and 0.5."""
    return weight / (1 + ((road - 0.5) / SURE) ** 2)


def test_scores_are_averaged_over_time() -> None:
    a = share(0, 0.4)
    averaged = roads([scored(0, 1), scored(1, 0), scored(2, 0)], weight=0.4)
    np.testing.assert_allclose(averaged, [1, a, a * a], rtol=1e-5)


def test_the_past_counts_less_where_the_network_is_sure() -> None:
    sure = roads([scored(0, 10), scored(1, -10)], weight=0.8)[1]
    assert sure == pytest.approx(-10 + 20 * share(-10, 0.8), rel=1e-5)
    assert sure < -7


def test_one_flickering_frame_does_not_change_the_labels() -> None:
    flicker = [scored(0, 1), scored(1, 0.3), scored(2, 1)]
    steady = [f.semantic.labels[0, 0] for f in Smooth(weight=0.4)(iter(flicker))]  # type: ignore[union-attr]
    raw = [f.semantic.labels[0, 0] for f in Smooth(weight=0)(iter(flicker))]  # type: ignore[union-attr]
    assert steady == [0, 0, 0]
    assert raw == [0, 1, 0]


DISCONTINUITIES: dict[Reset, Frame] = {
    "gap": scored(40, 0),
    "back": scored(0, 0),
    "shape": scored(1, 0, size=(4, 6)),
    "cut": replace(scored(1, 0), image=np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)),
}


@pytest.mark.parametrize("reason", DISCONTINUITIES)
def test_the_past_is_discarded_at_a_discontinuity(reason: Reset) -> None:
    frames = [scored(0, 1), DISCONTINUITIES[reason]]
    assert roads(frames, weight=0.4) == [1, 0]
    temporals = [f.temporal for f in Smooth()(iter(frames))]
    assert [t.reset for t in temporals if t is not None] == ["start", reason]
    assert [t.confidence for t in temporals if t is not None] == [None, None]


def test_every_reason_is_tested() -> None:
    assert {"start", *DISCONTINUITIES} == set(RESETS)


def test_an_image_of_another_size_is_another_shape() -> None:
    larger = replace(scored(1, 0), image=np.zeros((8, 12, 3), np.uint8))
    assert roads([scored(0, 1), larger], weight=0.4) == [1, 0]


def test_a_few_dropped_frames_are_no_gap() -> None:
    second = list(Smooth(weight=0.4)(iter([scored(0, 1), scored(5, 0)])))[1]
    assert second.temporal is not None
    assert second.temporal.reset is None
    assert second.temporal.confidence == pytest.approx(1)


def test_streams_do_not_mix() -> None:
    frames = [scored(0, 1, stream="front"), scored(0, 0, stream="rear"), scored(1, 1, stream="front")]
    assert roads(frames, weight=0.4) == [1, 0, 1]


def test_the_past_of_a_silent_stream_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.per_stream.EXPIRY_FRAMES", 5)
    first, second = scored(0, 1, stream="gone"), scored(1, 0, stream="gone")
    live = [scored(seq, 1) for seq in range(5)]
    assert roads([first, *live[:4], second], weight=0.4)[-1] == pytest.approx(share(0, 0.4))
    assert roads([first, *live, second], weight=0.4)[-1] == 0


def test_weight_0_changes_nothing() -> None:
    frames = [scored(0, 1), scored(1, 0)]
    assert all(before is after for before, after in zip(frames, Smooth(weight=0)(iter(frames)), strict=True))


def test_the_scores_of_the_input_are_not_modified() -> None:
    first, second = scored(0, 1), scored(1, 0)
    list(Smooth(weight=0.4)(iter([first, second])))
    assert second.semantic is not None
    assert second.semantic.scores is not None
    assert not second.semantic.scores[0].any()


def test_the_stage_filters_along_the_motion() -> None:
    frames = noisy_drive(12, unsure=1.2, seed=4, camera="pan", rate=15)
    out = smooth(frames)
    for frame, labels in zip(out, filter_labels(frames), strict=True):
        np.testing.assert_array_equal(frame.semantic.labels, labels)  # type: ignore[union-attr]
    again = smooth(frames)
    assert [f.temporal for f in out] == [f.temporal for f in again]


def test_motion_that_segment_has_computed_is_reused() -> None:
    def doubted(since: int) -> Frame:
        nothing = np.zeros((4, 6, 2), np.float32), np.full((4, 6), 0.5, np.float32)
        return replace(scored(1, 0), temporal=Temporal(key=False, motion=FrameMotion(since, *nothing)))

    assert roads([scored(0, 1), doubted(0)], weight=0.4)[1] == pytest.approx(share(0, 0.4) / 2)
    other = roads([scored(0, 1), doubted(7)], weight=0.4)[1]  # the motion from a frame that never reached this stage
    assert other == pytest.approx(share(0, 0.4))
    temporal = list(Smooth()(iter([scored(0, 1), doubted(0)])))[1].temporal
    assert temporal is not None
    assert not temporal.key


def test_motion_is_estimated_from_the_scaled_image() -> None:
    """From that of `segment` if it is smaller than the image and large enough; with key frames from the image."""
    random = np.random.default_rng(0)

    def resets(size: tuple[int, int], temporal: Temporal | None = None) -> list[Reset | None]:
        frames = []
        for seq in range(2):  # images that stay, and scaled ones that change
            image = np.zeros((400, 500, 3), np.uint8)
            frame = replace(scored(seq, 0), image=image, temporal=temporal)
            scaled = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            frames.append(replace(frame, semantic=replace(frame.semantic, scaled=scaled)))  # type: ignore[type-var]
        return [out.temporal.reset for out in Smooth()(iter(frames))]  # type: ignore[union-attr]

    assert resets(SIZE) == resets((300, 400)) == ["start", "cut"]
    assert resets((SIZE[0] - 1, SIZE[1])) == resets((500, 400)) == ["start", None]
    assert resets(SIZE, Temporal()) == ["start", None]


def test_warped_scores_are_not_blended_with_themselves() -> None:
    """Between key frames the last result is warped: the scores of the key frame are blended in once."""
    first, key = scored(0, 1), scored(1, 0)
    assert key.semantic is not None
    assert key.semantic.scores is not None
    base = ReferenceScores(key.semantic.scores)
    later = [
        replace(
            scored(seq, 0), semantic=replace(key.semantic, scores=WarpedScores(base, np.zeros((2, 3, 2), np.float32)))
        )
        for seq in (2, 3, 4)
    ]
    assert roads([first, key, *later], weight=0.4) == pytest.approx([1, *[share(0, 0.4)] * 4])
    again = roads([first, key, *later, scored(5, 0)], weight=0.4)[-1]  # the next key frame is new
    assert again == pytest.approx(share(0, 0.4) ** 2)


def test_scores_that_arrive_late_are_new() -> None:
    """A live frame may have the scores of a key frame that had no result yet when it passed."""
    first, late = scored(0, 1), scored(2, 0)
    assert late.semantic is not None
    answer = replace(
        late.semantic,
        scores=WarpedScores(ReferenceScores(scored(1, 0).semantic.scores), np.zeros((2, 3, 2), np.float32)),
    )  # type: ignore[union-attr, arg-type]
    assert roads([first, replace(late, semantic=answer)], weight=0.4) == pytest.approx([1, share(0, 0.4)])


def test_a_result_is_warped_by_the_whole_motion_since_its_frame() -> None:
    """Warped scores match the position of the town in the current frame. They are warped on access only."""
    frames = noisy_drive(5, unsure=0.1, seed=4, camera="pan", rate=15)
    key = frames[0].semantic
    assert key is not None
    assert key.scores is not None
    key_frames = KeyFrames(None)

    def infer(image: Image) -> Callable[[], Semantic]:
        return lambda: replace(key, scaled=image)

    results = [key_frames.segment(replace(frame, semantic=None), infer, every=9) for frame in frames]
    warped = [replace(out, temporal=temporal) for out, temporal in results]
    out = list(Smooth()(iter(warped)))
    last = out[-1].semantic
    assert last is not None
    for semantic in (warped[-1].semantic, last):
        assert semantic is not None
        moved = semantic.stored_scores
        assert isinstance(moved, WarpedScores)
        assert "scores" not in vars(moved)
        assert semantic.scaled is None  # that of the key frame
    truth = frames[-1].truth
    assert truth is not None
    still = Semantic(key.classes, key.engine, key.size, key.scores).labels
    assert (last.labels != truth.labels).mean() < 0.5 * (still != truth.labels).mean()


def test_the_confidence_of_a_key_frame_is_that_of_the_images_themselves() -> None:
    """Not that of the last step: confidence that the steps before it lost stays lost."""
    random = np.random.default_rng(0)
    past = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    now = past.copy()
    now[:, : SIZE[1] // 2] = random.integers(0, 256, (SIZE[0], SIZE[1] // 2, 3), dtype=np.uint8)
    first, carried, key = scored(0, 1), scored(1, 0), scored(2, 0)
    assert first.semantic is not None
    assert first.semantic.scores is not None
    moved = replace(
        first.semantic, scores=WarpedScores(ReferenceScores(first.semantic.scores), np.zeros((2, 3, 2), np.float32))
    )
    steps = [
        Temporal(motion=FrameMotion(k, np.zeros((*SIZE, 2), np.float32), np.ones(SIZE, np.float32))) for k in (0, 1)
    ]
    frames = [
        replace(first, image=past),
        replace(carried, image=now, semantic=moved, temporal=steps[0]),
        replace(key, image=now, temporal=steps[1]),
    ]
    out = list(Smooth(weight=0.4)(iter(frames)))[-1].semantic
    assert out is not None
    assert out.scores is not None
    assert out.scores[0, :, 0] == pytest.approx(0, abs=0.01)
    assert out.scores[0, :, 2] == pytest.approx(share(0, 0.4), rel=0.05)


def test_a_cut_in_a_drive_is_detected_and_a_change_of_light_is_not() -> None:
    cut = smooth(noisy_drive(6, unsure=1.0, seed=4, cut=3))
    assert [f.temporal.reset for f in cut] == ["start", None, None, "cut", None, None]  # type: ignore[union-attr]
    light = smooth(noisy_drive(6, unsure=1.0, seed=4, exposure=3))
    assert [f.temporal.reset for f in light[1:]] == [None] * 5  # type: ignore[union-attr]


def test_frames_without_labels_are_an_error() -> None:
    with pytest.raises(ConfigError, match="segment stage before"):
        list(Smooth()(iter([make_frame(0)])))


def test_labels_without_scores_pass_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    labelled = Semantic(CLASSES, ENGINE, (4, 6), label_map=np.zeros((4, 6), np.uint8))
    frames = [replace(make_frame(seq), semantic=labelled) for seq in range(3)]
    assert list(Smooth()(iter(frames))) == frames
    assert [record.getMessage().endswith("which are not smoothed") for record in caplog.records] == [True]
