"""`target_ms`: a graph gives up quality while its frames are too old, and recovers it when they are young again."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result
from stream_seg.errors import ConfigError
from stream_seg.frame import EngineInfo
from stream_seg.keyframes.keyframes import KeyFrames
from stream_seg.keyframes.latency_control import LatencyControl, QualityLevel, quality_levels
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.worker import Worker
from stream_seg.stages.base import Context, Frames, Policy
from stream_seg.stages.segment import Segment, defer_inference, segment_key_frames
from stream_seg.types import Classes
from tests.keyframes.test_keyframes import drive
from tests.support import small_networks
from tests.support.fake_stages import Camera, make_config, make_node
from tests.support.frames import make_frame

CLASSES = Classes(("dark", "bright"), ((0, 0, 0), (255, 0, 0)))
SIZE = (16, 24)
NETWORK_S, REST_S, TARGET_MS = 0.045, 0.025, 130.0
"""Four times as slow as usual, so that other load on the machine is small in comparison."""
CALM_S, BUSY_S = 2.0, 6.0
SECONDS = 13


@dataclass
class Machine:
    """A simulated machine that sleeps instead of computing, half as fast from CALM_S to BUSY_S after its first output.

    With `scale=0` it takes no time at all.

    `outputs` records of every output: second, age in seconds, quality level.
    """

    start_s: float = math.inf
    scale: float = 1.0
    outputs: list[tuple[float, float, int]] = field(default_factory=list)

    def work(self, seconds: float) -> None:
        busy = CALM_S <= time.monotonic() - self.start_s < BUSY_S
        time.sleep(self.scale * seconds * (2 if busy else 1))

    def engine(self, seconds: float) -> Engine:
        def run(images: Images) -> Result:
            self.work(seconds)
            return Result(scores=np.zeros((len(images), 2, 8, 12), np.float32))

        return Engine(EngineSpec(SIZE, CLASSES, EngineInfo("stub", "sleep", "f32", "cpu")), run)

    def segment(self, frames: Frames, *, target_ms: float | None) -> Frames:
        """Segment frames as the stage does, with engines that sleep."""
        with ExitStack() as stack:
            engines = [stack.enter_context(self.engine(seconds)) for seconds in (NETWORK_S, NETWORK_S / 4)]
            defer = partial(defer_inference, size=SIZE)
            control = LatencyControl(engines, every=1, target_ms=target_ms, defer=defer)
            worker = stack.enter_context(ThreadPoolExecutor(1))
            planned = ((frame, control.infer) for frame in frames)
            yield from segment_key_frames(planned, KeyFrames(worker), control)

    def sink(self, frames: Frames) -> Frames:
        for frame in frames:
            self.work(REST_S)
            now = time.monotonic()
            self.start_s = min(self.start_s, now)
            assert frame.temporal is not None
            self.outputs.append((now - self.start_s, now - frame.captured_ns / 1e9, frame.temporal.quality_level))
            yield frame

    def run(
        self, *, target_ms: float | None, camera: Callable[[Frames], Frames] | None = None, policy: Policy = "latest"
    ) -> Graph:
        nodes = [
            make_node("camera", "source", camera or Camera(30 * SECONDS, paced=True)),
            make_node("segment", "segment", partial(self.segment, target_ms=target_ms), "camera"),
            make_node("sink", "output", self.sink, "segment"),
        ]
        with Graph(make_config(nodes, policy=policy)) as graph:
            assert graph.wait(SECONDS + 60)
        assert graph.error is None
        return graph

    def late_seconds(self) -> list[int]:
        """Return the seconds in which the 95th percentile of the frame age was over the target."""
        by_second: dict[int, list[float]] = {}
        for second, age_s, _ in self.outputs:
            by_second.setdefault(int(second), []).append(1000 * age_s)
        return [second for second, ages in by_second.items() if np.percentile(ages, 95) > TARGET_MS]


def find_segment(graph: Graph) -> Worker:
    return next(worker for worker in graph.workers if worker.node.name == "segment")


@pytest.mark.parametrize("target_ms", [20_000, None])
def test_old_frames_lower_the_quality_and_young_ones_restore_it(target_ms: float | None) -> None:
    """The frames say themselves how old they are, so the speed of the machine decides nothing."""
    young, old = range(60), range(60, 160)

    def camera(_: Frames) -> Frames:
        for seq in range(300):
            frame = make_frame(seq)
            yield replace(frame, captured_ns=frame.captured_ns - 40 * 10**9) if seq in old else frame

    machine = Machine(scale=0)
    segment = find_segment(machine.run(target_ms=target_ms, camera=camera, policy="every"))
    levels = [level for *_, level in machine.outputs]
    if target_ms is None:
        assert set(levels) == {0}
        return
    cheapest = len(quality_levels(1, engines=2)) - 1
    assert set(levels[: len(young)]) == {0}
    assert levels[old[-1]] == cheapest
    assert levels[-1] == 0
    assert segment.labels.changes == {"slow": cheapest, "spare": 1}
    assert segment.labels.keys < segment.yielded == 300


@pytest.mark.soak
def test_a_machine_half_as_fast_keeps_the_target_and_recovers_its_quality() -> None:
    controlled, uncontrolled = Machine(), Machine()
    with ThreadPoolExecutor(1) as thread:  # both only sleep, so that they can run in parallel
        future = thread.submit(uncontrolled.run, target_ms=None)
        graph = controlled.run(target_ms=TARGET_MS)
        future.result()
    late = controlled.late_seconds()
    # at the start frames wait for the engines; one more second may be due to other load on the machine
    assert len(set(late) - {0, CALM_S}) <= 1, controlled.outputs
    assert set(range(int(CALM_S) + 1, int(BUSY_S))) <= set(uncontrolled.late_seconds())  # the negative control
    assert all(level == 0 for second, _, level in controlled.outputs if second < CALM_S)
    assert any(level == 0 for second, _, level in controlled.outputs if BUSY_S < second < BUSY_S + 5)
    assert all(level > 0 for second, _, level in controlled.outputs if CALM_S + 1 < second < BUSY_S)
    segment = find_segment(graph)
    assert 1 <= segment.labels.changes["spare"] <= segment.labels.changes["slow"]
    assert segment.labels.keys < segment.yielded


@pytest.mark.parametrize(
    ("every", "engines", "expected"),
    [
        (1, 2, [(1, 0), (2, 0), (3, 0), (5, 0), (5, 1), (10, 1)]),
        (1, 1, [(1, 0), (2, 0), (3, 0), (5, 0)]),
        (3, 2, [(3, 0), (5, 0), (5, 1), (10, 1)]),
        (20, 2, [(20, 0), (20, 1)]),
        ("auto", 2, [("auto", 0), (5, 0), (5, 1), (10, 1)]),
    ],
)
def test_the_quality_levels_go_down_from_the_configured_one(
    every: int, engines: int, expected: list[tuple[int, int]]
) -> None:
    assert quality_levels(every, engines=engines) == tuple(QualityLevel(*level) for level in expected)


@pytest.fixture
def network(tmp_path: Path) -> str:
    return str(
        small_networks.write_network(
            tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
        )
    )


def test_every_and_auto_are_keys_of_segment(network: str) -> None:
    frames = drive(7)
    out = list(Segment(network=network, precision="f32", every=3)(iter(frames)))
    assert [f.temporal.age for f in out if f.temporal] == [0, 1, 2, 0, 1, 2, 0]
    assert [f.seq for f in out] == list(range(7))
    plain = list(Segment(network=network, precision="f32")(iter(frames)))
    for number in (0, 3, 6):
        expected, result = plain[number].semantic, out[number].semantic
        assert expected is not None
        assert result is not None
        np.testing.assert_array_equal(result.labels, expected.labels)
    auto = list(Segment(network=network, precision="f32", every="auto")(iter(frames)))
    assert 1 <= sum(f.temporal.key for f in auto if f.temporal) < 7


def test_a_target_for_frames_of_a_recording_is_rejected(network: str) -> None:
    with pytest.raises(ConfigError, match="policy: latest"):
        Segment(network=network, target_ms=33).bind(Context(name="segment", policy="every"))


def test_a_network_that_cannot_be_resized_has_levels_of_key_frames_only(
    network: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Segment(network=network, precision="f32", target_ms=33).bind(Context(policy="latest"))
    assert len(list(stage(iter(drive(3))))) == 3
    assert Counter(record.levelname for record in caplog.records)["WARNING"] <= 1


def test_the_graph_binds_the_policy_of_the_links_to_the_stage(network: str) -> None:
    for policy in ("latest", "every"):
        stage = Segment(network=network)
        nodes = [
            make_node("camera", "source", Camera(1)),
            replace(make_node("segment", "segment", stage, "camera"), policy=policy),  # type: ignore[arg-type]
            make_node("sink", "output", lambda frames: frames, "segment"),
        ]
        graph = Graph(make_config(nodes))
        (worker,) = [worker for worker in graph.workers if worker.node.name == "segment"]
        assert worker.stage._context.policy == policy  # type: ignore[attr-defined]
