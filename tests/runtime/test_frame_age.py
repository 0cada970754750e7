"""Frame age is bounded however slow a stage is; and the check would notice if it were not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import numpy as np
import zmq

from stream_seg.runtime.graph import Graph
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config
from tests.support.frames import RATE

STAGE_S = 0.1
LIMIT_S = STAGE_S + 1 / RATE + 0.05


def complaints(ages_s: Sequence[float], *, seconds: float) -> list[str]:
    """What is wrong with the ages at the sink of frames that passed a stage of 100 ms for `seconds`."""
    found = []
    if (p99 := float(np.percentile(ages_s, 99))) > LIMIT_S:
        found.append(f"p99 is {p99:.3f} s, the limit {LIMIT_S:.3f} s")
    if max(ages_s) > 2 * LIMIT_S:
        found.append(f"the oldest frame is {max(ages_s):.3f} s old")
    slope = float(np.polyfit(np.linspace(0, seconds, len(ages_s)), ages_s, 1)[0])
    if slope > 0.001:
        found.append(f"the age grows by {1000 * slope:.2f} ms per second")
    if len(ages_s) < 0.95 * seconds / STAGE_S:
        found.append(f"only {len(ages_s)} frames in {seconds} s")
    return found


def test_age_is_bounded_and_does_not_grow() -> None:
    seconds = 60
    sink = Ledger()
    with Graph(
        make_config(make_chain(Camera(RATE * seconds, paced=True), Work(STAGE_S), sink), policy="latest"), live=True
    ) as graph:
        assert graph.wait(seconds + 10)
    assert complaints([age for _, _, age in sink.received], seconds=seconds) == []
    assert sink.numbers == sorted(set(sink.numbers))


def test_the_check_fails_for_push_and_pull(tmp_path: Path) -> None:
    """The negative control: PUSH/PULL with high-water mark 1 over ipc, small messages, the same camera and stage."""
    seconds = 12
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    push.set_hwm(1)
    pull.set_hwm(1)
    pull.bind(f"ipc://{tmp_path}/plain")
    push.connect(f"ipc://{tmp_path}/plain")

    def send() -> None:
        for taken in Camera(RATE * seconds, paced=True)(iter(())):
            push.send(taken.captured_ns.to_bytes(8, "big"))

    sending = Thread(target=send)
    sending.start()
    ages, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        captured_ns = int.from_bytes(pull.recv(), "big")
        time.sleep(STAGE_S)
        ages.append((time.monotonic_ns() - captured_ns) / 1e9)
    while sending.is_alive():
        pull.poll(10) and pull.recv()
    push.close(linger=0)
    pull.close(linger=0)
    context.term()
    found = complaints(ages, seconds=seconds)
    assert any("p99" in complaint for complaint in found)
    assert any("grows" in complaint for complaint in found)
