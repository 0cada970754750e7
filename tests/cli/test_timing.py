"""The clock of `bench`: stages of a known time, one frame at a time, and an error on the way."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result
from stream_seg.cli.timing import LEAST, alone, in_graph
from stream_seg.config.overrides import default_document, with_input, with_outputs
from stream_seg.errors import ConfigError, StreamSegError
from stream_seg.frame import EngineInfo, Frame
from stream_seg.types import Classes
from tests.support.frames import frame

SPEC = EngineSpec((8, 16), Classes(("a",), ((0, 0, 0),)), EngineInfo("tiny", "none", "f32", "CPU"))


def engine(*, sleep_s: float = 0.0, work_s: float = 0.0) -> Engine:
    """An engine that sleeps and works for so long."""

    def run(images: Images) -> Result:
        time.sleep(sleep_s)
        end = time.thread_time() + work_s
        while time.thread_time() < end:
            pass
        return Result(labels=np.zeros(images.shape[:3], np.uint8))

    return Engine(SPEC, run)


def document(**segment: Any) -> dict[str, Any]:
    """The default graph from a drawn source into a window, which is never opened."""
    made = with_outputs(with_input(default_document(), "synth://road"), ["window"])
    made["stages"]["segment"] |= segment
    return made


def pictures() -> list[Frame]:
    return [frame(number, size=(90, 120)) for number in range(3)]


def test_wall_clock_and_cpu_time_are_told_apart() -> None:
    asleep = alone(engine(sleep_s=0.02), [pictures()[0].image], seconds=0)
    assert asleep.frames == LEAST
    assert 20 <= asleep.p50_ms <= asleep.p95_ms <= asleep.p99_ms
    busy = alone(engine(work_s=0.02), [pictures()[0].image], seconds=0)
    assert busy.cpu_ms >= 20 > asleep.cpu_ms


def test_it_measures_for_as_long_as_it_is_told() -> None:
    began = time.monotonic()
    assert alone(engine(sleep_s=0.01), [pictures()[0].image], seconds=0.2).frames > LEAST
    assert time.monotonic() - began >= 0.2


def test_a_graph_is_measured_one_frame_at_a_time() -> None:
    times = in_graph(document(), pictures(), seconds=0)
    assert times.frames == LEAST
    assert 0 < times.p50_ms <= times.p99_ms
    assert times.cpu_ms > 0


def test_the_pictures_stay_as_they_were() -> None:
    given = pictures()
    in_graph(document(), given, seconds=0)
    for kept, fresh in zip(given, pictures(), strict=True):
        np.testing.assert_array_equal(kept.image, fresh.image)


def test_an_error_on_the_way_ends_it() -> None:
    with pytest.raises(StreamSegError, match="bf16 is not to be had"):
        in_graph(document(backend="onnxruntime", precision="bf16"), pictures(), seconds=60)
    with pytest.raises(ConfigError, match="precission"):
        in_graph(document(precission="f32"), pictures(), seconds=60)
