"""The timing of `bench`: engines of a known duration, one frame at a time, and an error on the way."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result
from stream_seg.cli.timing import LEAST_FRAMES, time_engine, time_graph
from stream_seg.config.overrides import default_document, with_input, with_outputs
from stream_seg.errors import ConfigError, StreamSegError
from stream_seg.frame import EngineInfo, Frame
from stream_seg.stages.registry import StageLoader
from stream_seg.types import Classes
from tests.support.frames import make_frame

SPEC = EngineSpec((8, 16), Classes(("a",), ((0, 0, 0),)), EngineInfo("tiny", "none", "f32", "CPU"))


def make_engine(*, sleep_s: float = 0.0, work_s: float = 0.0) -> Engine:
    """Return an engine that sleeps and computes for these times."""

    def run(images: Images) -> Result:
        time.sleep(sleep_s)
        end = time.thread_time() + work_s
        while time.thread_time() < end:
            pass
        return Result(labels=np.zeros(images.shape[:3], np.uint8))

    return Engine(SPEC, run)


def make_document(**segment: Any) -> dict[str, Any]:
    """Return the default graph from a synthetic source into a window, which is never opened."""
    loader = StageLoader()
    document = with_outputs(with_input(default_document(), "synth://road", loader), ["window"], loader)
    document["stages"]["segment"] |= segment
    return document


def make_frames() -> list[Frame]:
    return [make_frame(number, size=(90, 120)) for number in range(3)]


def test_wall_clock_and_cpu_time_differ() -> None:
    asleep = time_engine(make_engine(sleep_s=0.02), [make_frames()[0].image], seconds=0)
    assert asleep.frames == LEAST_FRAMES
    assert 20 <= asleep.p50_ms <= asleep.p95_ms <= asleep.p99_ms
    busy = time_engine(make_engine(work_s=0.02), [make_frames()[0].image], seconds=0)
    assert busy.cpu_ms >= 20 > asleep.cpu_ms


def test_the_duration_of_a_measurement() -> None:
    began = time.monotonic()
    assert time_engine(make_engine(sleep_s=0.01), [make_frames()[0].image], seconds=0.2).frames > LEAST_FRAMES
    assert time.monotonic() - began >= 0.2


def test_a_graph_is_measured_one_frame_at_a_time() -> None:
    times = time_graph(make_document(), make_frames(), seconds=0)
    assert times.frames == LEAST_FRAMES
    assert 0 < times.p50_ms <= times.p99_ms
    assert times.cpu_ms > 0


def test_the_images_are_not_changed() -> None:
    frames = make_frames()
    time_graph(make_document(), frames, seconds=0)
    for used, fresh in zip(frames, make_frames(), strict=True):
        np.testing.assert_array_equal(used.image, fresh.image)


def test_an_error_ends_the_measurement() -> None:
    with pytest.raises(StreamSegError, match="bf16 is not available"):
        time_graph(make_document(backend="onnxruntime", precision="bf16"), make_frames(), seconds=60)
    with pytest.raises(ConfigError, match="precission"):
        time_graph(make_document(precission="f32"), make_frames(), seconds=60)
