"""Test how every stage handles placeholder frames."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stream_seg.frame import Frame, Signal
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.report import Report
from stream_seg.stages.base import Frames
from stream_seg.stages.masks import Masks
from stream_seg.stages.overlay import Overlay
from stream_seg.stages.records import Records
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth
from stream_seg.stages.write import Write
from stream_seg.telemetry.metrics import register
from tests.support.clips import read_video
from tests.support.fake_stages import Ledger, Work, make_chain, make_config
from tests.support.frames import make_frame

SIZE = (48, 64)


def placeholder(seq: int, reason: str = "refused") -> Frame:
    signal = Signal("down", reason, time.monotonic_ns() - 7_000_000_000, 2)  # type: ignore[arg-type]
    return replace(make_frame(seq, size=SIZE), image=np.full((*SIZE, 3), 40, np.uint8), signal=signal)


def stream() -> list[Frame]:
    """Return a placeholder frame, four images, two placeholder frames, two images."""
    return [placeholder(n) if n in (0, 5, 6) else make_frame(n, size=SIZE) for n in range(9)]


def test_filters_pass_placeholder_frames_unchanged() -> None:
    frames = stream()
    segmented = list(Segment(precision="f32")(iter(frames)))
    assert [result.semantic is None for result in segmented] == [one.signal is not None for one in frames]
    smooth = list(Smooth()(iter(segmented)))
    overlaid = list(Overlay()(iter(smooth)))
    for before, after in zip(frames, overlaid, strict=True):
        assert after.seq == before.seq
        if before.signal is not None:
            assert after.image is before.image
            assert (after.image == 40).all()
    scores = [result.semantic.scores for result in (segmented[7], smooth[7]) if result.semantic is not None]
    assert np.array_equal(scores[0], scores[1])  # type: ignore[arg-type]  # smooth starts again after the gap


def test_a_placeholder_frame_is_no_drop_but_a_gap_before_it_is() -> None:
    """The number of dropped frames is the only figure that changes the width of the panel here."""

    def width(placeholders: range, last: int) -> int:
        def frames() -> Iterator[Frame]:
            yield make_frame(0, size=(180, 640))
            yield from (placeholder(seq) for seq in placeholders)
            time.sleep(0.02)  # less than 100 frames per second on any machine
            yield make_frame(last, size=(182, 640))  # another height, so that the figures are rendered again

        *_, result = Overlay()(frames())
        return int(np.argwhere((result.image != last).any(axis=2)).max(axis=0)[1])

    none = width(range(1, 1), 1)
    assert width(range(1, 21), 21) == none
    assert width(range(21, 22), 22) == width(range(1, 21), 41) == width(range(1, 1), 21) > none


def test_outputs_mark_the_gap(tmp_path: Path) -> None:
    segmented = list(Segment(precision="f32")(iter(stream())))
    for stage in (Masks(tmp_path / "masks"), Records(tmp_path / "o.jsonl"), Write(tmp_path / "o.mp4")):
        assert [result.seq for result in stage(iter(segmented))] == list(range(9))
    assert sorted(path.stem for path in (tmp_path / "masks").glob("*.png")) == [f"{n:06}" for n in (1, 2, 3, 4, 7, 8)]
    lines = [json.loads(text) for text in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert ["signal" in record for record in lines] == [n in (0, 5, 6) for n in range(9)]
    assert (lines[5]["signal"]["state"], lines[5]["signal"]["reason"]) == ("down", "refused")
    assert 7 <= lines[5]["signal"]["since_s"] < 30
    assert "classes" not in lines[5]
    images = [image for _, image in read_video(tmp_path / "o.mp4")]
    assert len(images) == 8  # without the placeholder before the first image
    assert abs(float(images[4].mean()) - 40) < 6


def source(_: Frames) -> Frames:
    """Yield frames of a camera that starts off, comes up, goes silent, returns, freezes, returns and ends."""
    now_ns = time.monotonic_ns()
    signals = [
        Signal("starting", None, now_ns),
        Signal("down", "refused", now_ns),
        None,
        Signal("stalled", "no data", now_ns),
        Signal("down", "auth", now_ns),
        None,
        Signal("stalled", "frozen", now_ns),
        Signal("stalled", "frozen", now_ns),
        None,
        Signal("down", "ended", now_ns),
    ]
    for number, signal in enumerate(signals):
        yield replace(make_frame(number), signal=signal)


@pytest.mark.parametrize(("count", "state"), [(0, "starting"), (10, "down")])
def test_metrics_of_states_stalls_and_reconnects(count: int, state: str) -> None:
    graph = Graph(make_config(make_chain(source, Work(), Ledger())))
    register(graph)
    if count:
        with graph:
            assert graph.wait(20)

    def value(name: str, **labels: str) -> float | None:
        return graph.registry.get_sample_value(f"stream_seg_{name}", {"stage": "camera", **labels})

    assert [value("source_state", state=name) for name in ("starting", "up", "stalled", "down")] == [
        float(name == state) for name in ("starting", "up", "stalled", "down")
    ]
    stalls = {reason: value("source_stalls_total", reason=reason) for reason in ("no data", "frozen")}
    assert stalls == dict.fromkeys(("no data", "frozen"), 1.0 if count else 0.0)
    back = {reason: value("source_reconnects_total", reason=reason) for reason in ("refused", "auth", "dns", "no data")}
    assert back == {"refused": 1.0 if count else 0.0, "auth": 1.0 if count else 0.0, "dns": 0.0, "no data": 0.0}
    assert value("source_up") == 0
    ages = graph.registry.get_sample_value("stream_seg_frame_age_seconds_count", {"stage": "sink", "stream": "camera"})
    assert ages == (3 if count else 0)  # a placeholder frame has no age


def test_report_and_metrics_count_placeholder_frames_separately() -> None:
    def source(_: Frames) -> Frames:
        yield from (placeholder(number) for number in range(3))
        began_s = time.monotonic()
        for number in range(3, 13):
            time.sleep(max(0.0, began_s + (number - 3) / 50 - time.monotonic()))
            yield make_frame(number)

    with Graph(make_config(make_chain(source, Work(), Ledger()))) as graph:
        assert graph.wait(20)
    figures = Report.of(graph, seconds=1)
    assert figures.frames.captured == figures.frames.written == 10
    assert (figures.frames.placeholders, figures.frames.by_output) == (3, {"sink": 13})
    assert 30 < figures.fps < 51  # counts only images, from the first one on
    register(graph)
    value = graph.registry.get_sample_value
    assert {value("stream_seg_placeholder_frames_total", {"stage": stage}) for stage in ("camera", "work", "sink")} == {
        3
    }
