"""The synthetic source: numbering, truth, pace, addresses."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from stream_seg.datasets.palettes import SYNTHETIC
from stream_seg.errors import ConfigError
from stream_seg.stages.synthetic import Synthetic, parse_synth
from stream_seg.synth import render


def small(**fields: object) -> Synthetic:
    return Synthetic(**{"width": 96, "height": 64, **fields})  # type: ignore[arg-type]


def wait_until(due_ns: float) -> None:
    """Wait like a slow consumer, by the clock that the source reads."""
    while (remaining_ns := due_ns - time.monotonic_ns()) > 0:
        time.sleep(remaining_ns / 1e9)


def test_frames_are_numbered_and_timed() -> None:
    start_ns = time.monotonic_ns()
    frames = list(small(frames=5, rate=25, stream="front")(iter(())))
    assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.pts for frame in frames] == [0, 1, 2, 3, 4]
    assert {frame.stream for frame in frames} == {"front"}
    assert {frame.time_base for frame in frames} == {Fraction(1, 25)}
    assert all(not frame.missed for frame in frames)
    stamps = [frame.captured_ns for frame in frames]
    assert start_ns <= stamps[0]
    assert stamps == sorted(stamps)
    assert frames[0].image.shape == (64, 96, 3)


def test_a_drive_ends_after_its_duration() -> None:
    for stage in (small(rate=25, duration_s="0:00.2"), small(rate=25, duration_s=0.2, frames=9)):
        assert stage.expected_frames() == len(list(stage(iter(())))) == 5
    assert small(rate=25, duration_s=9, frames=3).expected_frames() == 3
    with pytest.raises(ConfigError, match="duration_s: expected seconds or"):
        parse_synth("synth://road?duration_s=x")


def test_a_broadcast_rate_has_an_exact_time_base() -> None:
    (frame,) = small(frames=1, rate=29.97)(iter(()))
    assert frame.time_base == Fraction(100, 2997)


def test_the_truth_is_that_of_the_rendered_scene() -> None:
    stage = small(truth=True, seed=4, frames=3)
    frames = list(stage(iter(())))
    for frame in frames:
        assert frame.truth is not None
        drawing = render(4, frame.seq, 96, 64)
        np.testing.assert_array_equal(frame.image, drawing.image)
        np.testing.assert_array_equal(frame.truth.labels, drawing.labels())
        assert frame.truth.classes is SYNTHETIC
    assert frames[0].truth is not None
    assert frames[0].truth.motion is None
    assert frames[2].truth is not None
    np.testing.assert_array_equal(frames[2].truth.motion, render(4, 2, 96, 64).motion())


def test_truth_is_off_by_default() -> None:
    assert all(frame.truth is None for frame in small(frames=2)(iter(())))


def test_without_a_number_of_frames_the_drive_is_endless() -> None:
    assert [frame.seq for frame in islice(small()(iter(())), 40)] == list(range(40))


def test_a_paced_source_keeps_its_rate() -> None:
    frames = list(small(frames=12, rate=100, paced=True)(iter(())))
    assert frames[-1].seq == 11
    assert frames[-1].captured_ns - frames[0].captured_ns >= 11 / 100 * 1e9 * 0.98


def test_a_late_paced_source_skips_frames_and_counts_them() -> None:
    source = small(frames=400, rate=100, paced=True)(iter(()))
    first = next(source)
    assert (first.seq, dict(first.missed)) == (0, {})
    wait_until(first.captured_ns + 0.25e9)
    second = next(source)
    assert second.seq >= 24
    assert dict(second.missed) == {"late": second.seq - 1}
    third = next(source)
    # no burst: the next frame comes at its own time
    assert third.captured_ns >= first.captured_ns + third.seq / 100 * 1e9 * 0.98
    assert third.seq == second.seq + 1 + sum(third.missed.values())


def test_a_late_paced_source_still_yields_its_last_frame() -> None:
    source = small(frames=10, rate=100, paced=True)(iter(()))
    first = next(source)
    wait_until(first.captured_ns + 0.3e9)
    rest = list(source)
    assert [frame.seq for frame in rest] == [9]
    assert dict(rest[0].missed) == {"late": 8}


def test_an_unpaced_source_never_skips() -> None:
    source = small(frames=3, rate=1000)(iter(()))
    first = next(source)
    wait_until(first.captured_ns + 0.02e9)
    assert [frame.seq for frame in source] == [1, 2]


def test_a_cut_shows_another_town_without_motion() -> None:
    frames = list(small(frames=6, cut=3, truth=True, seed=4)(iter(())))
    assert [f.truth is not None and f.truth.motion is None for f in frames] == [True, False, False, True, False, False]
    other = list(small(frames=6, truth=True, seed=5)(iter(())))
    np.testing.assert_array_equal(frames[4].image, other[4].image)
    np.testing.assert_array_equal(frames[4].truth.labels, other[4].truth.labels)  # type: ignore[union-attr]


def test_the_motion_over_a_dropped_frame_and_a_cut_is_unknown() -> None:
    frames = list(small(frames=8, cut=4, drop=5, truth=True)(iter(())))
    assert [f.seq for f in frames if f.truth is not None and f.truth.motion is None] == [0, 5]
    assert [f.seq for f in frames] == [0, 1, 2, 3, 5, 6, 7]


def test_every_few_frames_one_is_dropped_and_the_motion_spans_it() -> None:
    frames = list(small(frames=8, drop=4, truth=True, camera="pan", shake=0, noise=0)(iter(())))
    whole = list(small(frames=8, truth=True, camera="pan", shake=0, noise=0)(iter(())))
    assert [f.seq for f in frames] == [0, 1, 2, 4, 5, 6]
    assert [dict(f.missed) for f in frames] == [{}, {}, {}, {"late": 1}, {}, {}]
    np.testing.assert_array_equal(frames[3].image, whole[4].image)
    far, near, before = (f.truth.motion for f in (frames[3], whole[4], whole[3]))  # type: ignore[union-attr]
    sky = whole[4].truth.labels == 0  # type: ignore[union-attr]
    np.testing.assert_allclose(far[sky], near[sky] + before[sky].mean(0), atol=0.2)  # type: ignore[index]


def test_a_dropped_last_frame_is_counted() -> None:
    source = small(frames=4, drop=4)(iter(()))
    assert [next(source).seq for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StopIteration) as end:
        next(source)
    assert end.value.value == {"late": 1}


def test_a_jump_of_the_exposure_darkens_the_image_only() -> None:
    frames = list(small(frames=4, exposure=2, truth=True, noise=0)(iter(())))
    plain = list(small(frames=4, truth=True, noise=0)(iter(())))
    np.testing.assert_array_equal(frames[1].image, plain[1].image)
    assert frames[2].image.mean() < 0.7 * plain[2].image.mean()
    for one, other in zip(frames, plain, strict=True):
        np.testing.assert_array_equal(one.truth.labels, other.truth.labels)  # type: ignore[union-attr]


def test_a_van_crosses_the_view() -> None:
    frames = list(small(frames=30, rate=10, camera="static", shake=0, crossing=True, truth=True)(iter(())))
    car = SYNTHETIC.index("car")
    near = [f for f in frames[1:] if (f.truth.labels == car).mean() > 0.15]  # type: ignore[union-attr]
    assert 8 < len(near) < 25
    for f in near:
        across = f.truth.motion[..., 0][f.truth.labels == car]  # type: ignore[union-attr, index]
        # 0.6 m per frame, its side 8 m away, covering most of the car pixels
        assert np.median(across[across < -1]) == pytest.approx(-0.6 / 8 * 0.85 * 96, rel=0.1)


def test_an_address_sets_fields() -> None:
    keys = parse_synth("synth://road?seed=3&size=1280x720&rate=30&frames=300&paced=1&noise=0.5&camera=pan")
    assert keys == {
        "scene": "road",
        "seed": 3,
        "width": 1280,
        "height": 720,
        "rate": 30.0,
        "frames": 300,
        "paced": True,
        "noise": 0.5,
        "camera": "pan",
    }
    assert parse_synth("synth://road") == {"scene": "road"}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("synth://sea", "allowed: synth://road"),
        ("http://road", "allowed: synth://road"),
        ("synth://road?sede=3", "unknown key 'sede', did you mean seed? (known: size, seed, rate"),
        ("synth://road?width=640", "unknown key 'width' (known: size"),
        ("synth://road?size=big", "size: expected WIDTHxHEIGHT in pixels, such as 1280x720, got 'big'"),
        ("synth://road?size=32x64", "width: expected whole number >= 64 and <= 8192, got 32"),
        ("synth://road?rate=fast", "rate: expected number >= 1 and <= 1000, got 'fast'"),
        ("synth://road?rate=nan", "rate: expected number >= 1 and <= 1000, got 'nan'"),
        ("synth://road?frames=0", "frames: expected whole number >= 1, got '0'"),
        ("synth://road?camera=fly", "camera: expected drive or static or pan, got 'fly'"),
        ("synth://road?seed=", "seed: expected whole number >= 0 and < 4294967296, got ''"),
    ],
)
def test_the_error_for_an_invalid_address_is_one_line(uri: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_synth(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
