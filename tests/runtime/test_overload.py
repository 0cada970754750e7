"""More live frames than the stages can take: dropped frames cost no conversion, and every source has its turn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import Event, Lock
from typing import ClassVar

import numpy as np
import pytest

from stream_seg.frame import PendingImage
from stream_seg.runtime.link import FRAME
from stream_seg.runtime.sender import Sender
from stream_seg.stages.base import Frames, Traits
from stream_seg.types import Image
from tests.support.fake_stages import FunctionStage, Ledger, make_node, run_graph
from tests.support.frames import make_frame
from tests.support.program import wait_until

WAIT_S = 20.0


@dataclass
class PendingCamera:
    """A source of `frames` pending images, as fast as they are taken or dropped; `converted` lists the numbers."""

    traits: ClassVar = Traits(role="source")
    frames: int
    converted: list[int] = field(default_factory=list)
    ended: Event = field(default_factory=Event)

    def __call__(self, _: Frames) -> Frames:
        for number in range(self.frames):
            yield make_frame(number).evolve(image=PendingImage(partial(self._convert, number), (4, 6, 3)))
        self.ended.set()

    def _convert(self, number: int) -> Image:
        self.converted.append(number)
        return np.full((4, 6, 3), number, np.uint8)


def read_images(frames: Frames) -> Frames:
    """An output that reads every image."""
    for frame in frames:
        assert frame.image.max() == frame.seq
        yield frame


def test_frames_that_are_superseded_are_never_converted() -> None:
    camera, taken = PendingCamera(100), list[int]()

    def work(frames: Frames) -> Frames:
        """Be busy with the first frame until all others are superseded."""
        for frame in frames:
            taken.append(frame.seq)
            assert camera.ended.wait(WAIT_S)
            assert frame.image.max() == frame.seq
            yield frame

    sink = FunctionStage(read_images, Traits(role="output"))
    nodes = [make_node("camera", "source", camera), make_node("work", "filter", work, "camera")]
    graph = run_graph([*nodes, make_node("sink", "output", sink, "work")], policy="latest")
    assert graph.error is None
    assert taken[-1] == 99
    assert len(taken) <= 4, "the first, those under way, and the newest"
    assert camera.converted == taken


def test_several_outputs_share_one_conversion() -> None:
    camera, images = PendingCamera(20), Counter[int]()
    lock = Lock()

    def look(frames: Frames) -> Frames:
        for frame in frames:
            assert not frame.image.flags.writeable
            with lock:
                images[id(frame.image)] += 1
            shared.append(frame.image)
            yield frame

    shared = list[Image]()
    sinks = [make_node(f"sink{n}", "output", FunctionStage(look, Traits(role="output")), "camera") for n in range(3)]
    assert run_graph([make_node("camera", "source", camera), *sinks]).error is None
    assert sorted(camera.converted) == list(range(20))
    assert list(images.values()) == [3] * 20


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Frames that have left each sender, by the name of its link."""
    counts, transmit = Counter[str](), Sender._transmit

    def transmit_and_count(sender: Sender, message: bytes) -> None:
        transmit(sender, message)
        if message.startswith(FRAME):
            counts[sender._stats.name] += 1

    monkeypatch.setattr(Sender, "_transmit", transmit_and_count)
    return counts


def test_sources_that_deliver_too_much_get_equal_shares(sent: Counter[str]) -> None:
    """The stage is so slow that a frame of every source waits when it asks for the next one."""
    names, total = [f"camera{number}" for number in range(5)], 62
    taken, order = Counter[str](dict.fromkeys(names, 0)), list[str]()

    def work(frames: Frames) -> Frames:
        for frame in frames:
            taken[frame.stream] += 1
            order.append(frame.stream)
            yield frame
            wait_until(partial(all_others_wait, frame.stream))

    def all_others_wait(stream: str) -> bool:
        """The source of the last frame may send its next one when the stage asks for it."""
        return all(sent[f"{name}->work"] > taken[name] for name in names if name != stream)

    def camera(name: str, burst: int, _: Frames) -> Frames:
        """Yield frames, `burst` for each one that is taken."""
        for number in count():
            yield make_frame(number, stream=name)
            if number % burst == 0:
                wait_until(partial(may_continue, name, number // burst))

    def may_continue(name: str, frames: int) -> bool:
        return taken[name] >= frames or ledger.ended.is_set()

    ledger = Ledger(stop_after=total)
    cameras = [make_node(name, "source", partial(camera, name, 20 if name == "camera0" else 1)) for name in names]
    nodes = [*cameras, make_node("work", "filter", work, *names), make_node("sink", "output", ledger, "work")]
    graph = run_graph(nodes, policy="latest")
    assert graph.error is None
    assert len(ledger.received) == total
    turns = [order[number : number + len(names)] for number in range(len(names), total - len(names))]
    assert all(sorted(turn) == names for turn in turns), "every source has its turn before one has its second"
