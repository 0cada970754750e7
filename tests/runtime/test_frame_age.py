"""The age of frames stays bounded however slow a stage is, and the check notices where it does not.

The short tests count time in ticks: the camera sends a frame per tick, the slow stage takes three ticks for each, and
the next tick comes when every thread waits. So the load of the machine decides nothing. Under --soak the same is
measured in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread

import numpy as np
import pytest
import zmq

from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config
from tests.support.frames import RATE, make_frame

STAGE_TICKS, TICKS = 3, 300
STAGE_S = 0.1
WAIT_S = 20.0


def find_faults(ages: Sequence[float], *, stage: float, interval: float, slack: float, duration: float) -> list[str]:
    """Return what is wrong with the ages of frames that passed a stage, all in one unit of time."""
    limit, faults = stage + interval + slack, []
    if (p99 := float(np.percentile(ages, 99))) > limit:
        faults.append(f"p99 is {p99:.3f}, the limit {limit:.3f}")
    if max(ages) > 2 * limit:
        faults.append(f"the oldest frame is {max(ages):.3f} old")
    slope = float(np.polyfit(np.linspace(0, duration, len(ages)), ages, 1)[0])
    if slope > 0.001:
        faults.append(f"the age grows by {slope:.4f} per unit of time")
    if len(ages) < 0.95 * duration / stage:
        faults.append(f"only {len(ages)} frames in {duration}")
    return faults


def find_faults_in_ticks(ages: Sequence[float]) -> list[str]:
    return find_faults(ages, stage=STAGE_TICKS, interval=1, slack=0, duration=TICKS)


def find_faults_in_seconds(ages: Sequence[float], *, duration_s: float) -> list[str]:
    return find_faults(ages, stage=STAGE_S, interval=1 / RATE, slack=0.05, duration=duration_s)


def run_ticks(send: Callable[[int], None], take: Callable[[], int], finish: Callable[[], None]) -> list[int]:
    """Send a frame per tick to a stage that takes STAGE_TICKS for each. Return the ages of finished frames in ticks."""
    ages: list[int] = []
    current, began = None, 0
    for tick in range(TICKS):
        send(tick)
        if current is not None and tick - began == STAGE_TICKS:
            finish()
            ages.append(tick - current)
            current = None
        if current is None:
            current, began = take(), tick
    return ages


@dataclass
class SteppedCamera:
    """A source that sends its next frame when `send` is called, which returns when the link has the frame."""

    _steps: Semaphore = field(default_factory=lambda: Semaphore(0))
    _waits: SimpleQueue[int] = field(default_factory=SimpleQueue)

    def __call__(self, _: Frames) -> Frames:
        for number in range(TICKS):
            self._waits.put(number)
            assert self._steps.acquire(timeout=WAIT_S)
            yield make_frame(number)
        self._waits.put(TICKS)

    def send(self, number: int) -> None:
        assert self._waits.get(timeout=WAIT_S) == number
        self._steps.release()
        end_s = time.monotonic() + WAIT_S
        while self._waits.empty():
            assert time.monotonic() < end_s, "the link holds the camera back"
            time.sleep(0.0002)


@dataclass
class SteppedWork:
    """A filter that keeps each frame until `finish` is called; `take` waits for the next frame."""

    _taken: SimpleQueue[int] = field(default_factory=SimpleQueue)
    _steps: Semaphore = field(default_factory=lambda: Semaphore(0))

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            self._taken.put(frame.seq)
            assert self._steps.acquire(timeout=WAIT_S)
            yield frame

    def take(self) -> int:
        return self._taken.get(timeout=WAIT_S)

    def finish(self) -> None:
        self._steps.release()


@contextmanager
def open_push_pull(folder: Path) -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Open PUSH and PULL sockets with high-water mark 1 over ipc, the usual queue of small messages."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    push.set_hwm(1)
    pull.set_hwm(1)
    pull.bind(f"ipc://{folder}/plain")
    push.connect(f"ipc://{folder}/plain")
    yield push, pull
    push.close(linger=0)
    pull.close(linger=0)
    context.term()


def test_a_slow_stage_takes_the_newest_frame() -> None:
    camera, work, sink = SteppedCamera(), SteppedWork(), Ledger()
    source, stage, output = make_chain(camera, work, sink)
    with Graph(make_config([source, replace(stage, policy="latest"), output])) as graph:
        ages = run_ticks(camera.send, work.take, work.finish)
        for _ in range(2):  # the frame that the stage has, and the last one of all
            work.finish()
        assert graph.wait(WAIT_S)
    assert find_faults_in_ticks(ages) == []
    assert set(ages) == {STAGE_TICKS}
    assert sink.numbers == [*range(0, TICKS, STAGE_TICKS), TICKS - 1]


def test_the_check_fails_for_push_and_pull(tmp_path: Path) -> None:
    """The control: with plain sockets frames queue up, and their age grows."""
    with open_push_pull(tmp_path) as (push, pull):
        ages = run_ticks(lambda tick: push.send(str(tick).encode()), lambda: int(pull.recv()), lambda: None)
    faults = find_faults_in_ticks(ages)
    assert any("p99" in fault for fault in faults)
    assert any("grows" in fault for fault in faults)


@pytest.mark.soak
def test_the_age_is_bounded_in_seconds() -> None:
    seconds, sink = 60, Ledger()
    nodes = make_chain(Camera(RATE * seconds, paced=True), Work(STAGE_S), sink)
    with Graph(make_config(nodes, policy="latest")) as graph:
        assert graph.wait(seconds + 10)
    assert find_faults_in_seconds([age_s for _, _, age_s in sink.received], duration_s=seconds) == []
    assert sink.numbers == sorted(set(sink.numbers))


@pytest.mark.soak
def test_the_check_in_seconds_fails_for_push_and_pull(tmp_path: Path) -> None:
    seconds, ages_s = 12, []
    with open_push_pull(tmp_path) as (push, pull):

        def send() -> None:
            for frame in Camera(RATE * seconds, paced=True)(iter(())):
                push.send(frame.captured_ns.to_bytes(8, "big"))

        sending = Thread(target=send)
        sending.start()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            captured_ns = int.from_bytes(pull.recv(), "big")
            time.sleep(STAGE_S)
            ages_s.append((time.monotonic_ns() - captured_ns) / 1e9)
        while sending.is_alive():
            pull.poll(10) and pull.recv()
    faults = find_faults_in_seconds(ages_s, duration_s=seconds)
    assert any("p99" in fault for fault in faults)
    assert any("grows" in fault for fault in faults)
