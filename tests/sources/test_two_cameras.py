"""Two real cameras in one graph: faults of one do not affect the other."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from stream_seg.stages.capture import Capture
from tests.support.fake_stages import make_config, make_node
from tests.support.fault_proxy import FAULTS, Fault, FaultProxy, fault_proxy
from tests.support.program import wait_until
from tests.support.rtsp_server import rtsp_server

STALL_S, SHORT_STALL_S = 3.0, 0.8
"""Time without a frame after which a camera counts as stalled; the short one is for measurements."""
NOTICED_S, BACK_S, CHANGE_MS = SHORT_STALL_S + 0.5, 2.0, 10.0
CALM_S, FAULT_S, UP_S = 1.5, 0.7, 0.8
"""UP_S is longer than `live.STEADY_S`: a camera that fails again at once is retried later, which test_live tests."""
WINDOW_S = 0.5


@dataclass
class Recorder:
    """An output that records of every frame: stream, time, age in ms, and whether it is an image."""

    frames: list[tuple[str, float, float, bool]] = field(default_factory=list)
    slow_s: float = 0.0

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            if frame.signal is not None:
                time.sleep(self.slow_s)
            age_ms = (time.monotonic_ns() - frame.captured_ns) / 1e6
            self.frames.append((frame.stream, time.monotonic(), age_ms, frame.signal is None))
            yield frame

    def wait_for_rear(self, *, image: bool, since_s: float) -> float:
        """Wait for the rear camera's next image, or placeholder. Return the seconds from `since_s` until then."""
        end_s = since_s + 60
        while True:
            times_s = [at_s for stream, at_s, _, is_image in self.frames if stream == "rear" and is_image == image]
            if times_s and times_s[-1] > since_s:
                return next(at_s for at_s in times_s if at_s > since_s) - since_s
            assert time.monotonic() < end_s, "no frame of the rear camera"
            time.sleep(0.005)

    def p99_ms(self, since_s: float, until_s: float) -> float:
        """Return the 99th percentile of the front camera's frame age, as the median over windows."""
        starts_s = np.arange(since_s, until_s, WINDOW_S)[:-1]
        windows = [
            [age_ms for stream, at_s, age_ms, _ in self.frames if stream == "front" and 0 <= at_s - start_s < WINDOW_S]
            for start_s in starts_s
        ]
        return float(np.median([np.percentile(window, 99) for window in windows if window]))


@dataclass
class Measurement:
    """Seconds until each fault was noticed and until images were back, and the front camera's frames."""

    times: list[tuple[float, float]]
    fronts: int
    """Frames of the front camera during the faults."""
    calm_ms: float
    """The front camera's frame age before the faults, and during the faults."""
    faults_ms: float


def count_resources() -> tuple[int, int]:
    """Return the numbers of open files and of threads."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def inject(fault: Fault, proxy: FaultProxy, recorder: Recorder) -> tuple[float, float]:
    """Return the seconds until a fault of the rear camera was noticed, and until its images were back."""
    start_s = time.monotonic()
    proxy.fault = fault
    noticed_s = recorder.wait_for_rear(image=False, since_s=start_s)
    time.sleep(FAULT_S)
    end_s = time.monotonic()
    proxy.fault = "pass"
    back_s = recorder.wait_for_rear(image=True, since_s=end_s)
    time.sleep(UP_S)
    return noticed_s, back_s


def measure(faults: tuple[Fault, ...], *, stall_s: float, slow_s: float = 0.0) -> Measurement:
    """Inject faults of the rear camera. Fail if the front camera shows a placeholder or resources are left."""
    recorder = Recorder(slow_s=slow_s)
    with rtsp_server() as (front, _), rtsp_server() as (rear, _), fault_proxy(rear) as proxy:
        cameras = {"front": front, "rear": proxy.port}
        nodes = [
            make_node(name, "source", Capture(f"rtsp://127.0.0.1:{port}/live", stream=name, stall_s=stall_s))
            for name, port in cameras.items()
        ]
        nodes.append(make_node("sink", "output", recorder, *cameras))
        with Graph(make_config(nodes, policy="latest")) as graph:
            wait_until(lambda: {stream for stream, *_, is_image in recorder.frames if is_image} == {"front", "rear"})
            time.sleep(0.5)
            before, calm_s = count_resources(), time.monotonic()
            time.sleep(CALM_S)
            faults_s = time.monotonic()
            times = [inject(fault, proxy, recorder) for fault in faults]
            end_s = time.monotonic()
            wait_until(lambda: all(abs(now - then) <= 2 for now, then in zip(count_resources(), before, strict=True)))
            assert graph.error is None
    images = [is_image for stream, *_, is_image in recorder.frames if stream == "front"]
    assert False not in images[images.index(True) :]
    fronts = sum(stream == "front" and faults_s <= at_s < end_s for stream, at_s, *_ in recorder.frames)
    return Measurement(times, fronts, recorder.p99_ms(calm_s, faults_s), recorder.p99_ms(faults_s, end_s))


def test_faults_of_one_camera_are_recovered_from_and_do_not_reach_the_other() -> None:
    measurement = measure(("hang", "refuse"), stall_s=STALL_S)
    assert len(measurement.times) == 2
    assert measurement.fronts > 10


@pytest.mark.soak
def test_eight_faults_of_one_camera_are_noticed_and_recovered_from_and_do_not_affect_the_other() -> None:
    faults: tuple[Fault, ...] = (*FAULTS, *FAULTS, "hang", "half")
    result = measure(faults, stall_s=SHORT_STALL_S)
    print(faults, result)
    assert max(noticed_s for noticed_s, _ in result.times) <= NOTICED_S, result
    assert max(back_s for _, back_s in result.times) <= BACK_S, result
    assert result.faults_ms <= result.calm_ms + CHANGE_MS, result


@pytest.mark.soak
def test_an_output_that_is_slow_on_placeholders_would_be_detected() -> None:
    """The control: the same measurement where a fault of one camera does reach the other."""
    result = measure(("half",), stall_s=SHORT_STALL_S, slow_s=0.4)
    assert result.faults_ms > result.calm_ms + CHANGE_MS
