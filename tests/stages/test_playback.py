"""Test the playback of outputs that people watch, on a clock that only waiting moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from stream_seg.config.graph_file import check
from stream_seg.errors import ConfigError
from stream_seg.frame import Frame
from stream_seg.runtime.graph import Graph
from stream_seg.sources import reader
from stream_seg.sources.video import DecodedFrame
from stream_seg.stages import playback
from stream_seg.stages.base import Context, Frames, Policy, Traits
from stream_seg.stages.playback import Playback, resolve_pace, resolve_stay
from tests.support.clips import number_image, write_video
from tests.support.fake_stages import Camera, FunctionStage, Ledger, make_config, make_node
from tests.support.frames import RATE, make_frame
from tests.support.program import wait_until

WATCHED = Context(recorded=True, only_watched=True, attended=True)


class Clock:
    """A clock that only moves by `sleep`."""

    now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(playback, "monotonic", lambda: clock.now_s)
    monkeypatch.setattr(playback, "sleep", clock.sleep)
    return clock


def test_a_recording_plays_at_its_own_rate(clock: Clock) -> None:
    paced = Playback(WATCHED, pace=True)
    for seq in range(2 * RATE + 1):
        paced.hold(make_frame(seq))
        assert clock.now_s == pytest.approx(seq / RATE)


def newest_frames(clock: Clock, seconds: float) -> Iterator[Frame]:
    """Yield what a link of policy latest delivers of a clip that plays in a loop: the newest frame at each request."""
    last = -1
    while True:
        clock.sleep(max(0.0, (last + 1) / RATE - clock.now_s))
        if clock.now_s > seconds:
            return
        last = int(clock.now_s * RATE + 1e-6)
        yield make_frame(last)


def test_a_looped_clip_plays_at_its_own_rate(clock: Clock) -> None:
    """Held back like a recording it would show 3 frames/s: each wait drops frames, and the next one is as long."""
    looped = Playback(Context(policy="latest", live=lambda stream: True), pace=True)
    shown = [looped.hold(frame) for frame in newest_frames(clock, 10)]
    assert len(shown) == pytest.approx(10 * RATE, abs=2)


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_frames_of_a_live_stream_pass_at_once(clock: Clock, policy: Policy) -> None:
    looped = Playback(Context(policy=policy, live=lambda stream: True), pace=True)
    assert all(looped.hold(make_frame(seq)) for seq in range(RATE))  # a burst after a delay elsewhere
    assert clock.now_s == 0


def test_a_recording_beside_a_camera_is_not_held_back_while_it_drops_frames(clock: Clock) -> None:
    beside = Playback(Context(policy="latest"), pace=True)
    assert all(beside.hold(make_frame(10 * seq)) for seq in range(RATE))
    assert clock.now_s == 0


def test_a_loop_gives_its_frames_at_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    times = SimpleNamespace(
        monotonic=lambda: clock.now_s, sleep=clock.sleep, monotonic_ns=lambda: round(clock.now_s * 1e9)
    )
    monkeypatch.setattr(reader, "time", times)
    image = np.zeros((2, 2, 3), np.uint8)
    clip = [DecodedFrame(image, pts, 40, Fraction(1, 1000), 0) for pts in (500, 540, 600, 640)]
    loop = reader.play_in_loop(lambda: iter(clip))
    due_ms = [frame.captured_ns / 1e6 for frame in islice(loop, 9) if frame]
    assert np.diff(due_ms) == pytest.approx([40, 60, 40, 40, 40, 60, 40, 40])


def test_a_graph_holds_back_no_looped_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(playback, "sleep")  # a frame that is held back fails the stage
    clip = write_video(tmp_path / "clip.mkv", map(number_image, range(5)))
    capture = {"uri": str(clip), "loop": True, "frames": 12}
    stages = {"capture": capture, "serve": {"input": "capture", "port": 0, "pace": True}}
    with Graph(check({"stages": stages}, where="g")) as graph:
        assert graph.wait(20)
    assert graph.error is None
    assert [worker.images for worker in graph.workers if worker.is_source] == [12]


def test_a_late_recording_catches_up_for_a_second(clock: Clock) -> None:
    paced = Playback(WATCHED, pace=True)
    due_s = []
    for seq in range(5 * RATE):
        clock.now_s += {RATE: 0.8, 3 * RATE: 3.0}.get(seq, 0.0)  # the machine is busy elsewhere
        paced.hold(make_frame(seq))
        due_s.append(clock.now_s - seq / RATE)
    assert due_s[3 * RATE - 1] == pytest.approx(0)
    assert due_s[-1] == pytest.approx(2, abs=0.1)


def test_the_next_frame_is_due_after_a_pause(clock: Clock) -> None:
    paced = Playback(WATCHED, pace=True)
    for seq in range(10):
        paced.hold(make_frame(seq))
    paced.wait_while(lambda: clock.now_s < 60)
    resumed_s = clock.now_s
    for seq in range(10, 20):
        paced.hold(make_frame(seq))
        assert clock.now_s - resumed_s == pytest.approx((seq - 10) / RATE)


def test_a_key_interrupts_a_long_pause_of_a_recording(clock: Clock) -> None:
    paced = Playback(WATCHED, pace=True)
    assert paced.hold(make_frame(0))
    later = replace(make_frame(1), pts=500, time_base=Fraction(1))
    assert not paced.hold(later, poll=lambda: clock.now_s < 3)
    assert clock.now_s == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("context", "paced", "stays"),
    [
        (WATCHED, True, True),
        (replace(WATCHED, attended=False), True, False),  # the Python API, and a run with --report
        (replace(WATCHED, only_watched=False), False, False),
        (replace(WATCHED, recorded=False), False, False),
        (replace(WATCHED, policy="latest"), False, True),
    ],
)
def test_the_defaults_depend_on_the_run(context: Context, paced: bool, stays: bool) -> None:
    assert resolve_pace(None, context) is paced
    assert resolve_stay(None, context) is stays
    assert resolve_stay(False, context) is False
    assert resolve_stay(True, context) is True


def test_a_recording_of_which_frames_are_dropped_cannot_be_paced() -> None:
    with pytest.raises(ConfigError, match=r"^serve\.pace: needs policy every"):
        resolve_pace(True, replace(WATCHED, name="serve", policy="latest"))
    assert resolve_pace(True, replace(WATCHED, recorded=False, policy="latest"))


@dataclass
class Watcher:
    """An output that people watch, and that keeps its context."""

    traits: ClassVar = Traits(role="output", watched=True)
    context: Context = field(default_factory=Context)

    def bind(self, context: Context) -> Watcher:
        self.context = context
        return self

    def __call__(self, frames: Frames) -> Frames:
        yield from frames


def test_a_stage_knows_which_streams_are_live_and_which_have_ended() -> None:
    release = Event()

    def endless(_: Frames) -> Frames:
        yield make_frame(0, stream="rear")
        release.wait(30)

    rear = FunctionStage(endless, Traits(role="source"))
    rear.live, rear.stream = True, "rear"  # type: ignore[attr-defined] # optional members of a source
    watcher = Watcher()
    nodes = [
        make_node("front", "source", Camera(2, stream="front")),
        make_node("rear", "source", rear),
        make_node("window", "output", watcher, "front", "rear"),
    ]
    with Graph(make_config(nodes), attended=True) as graph:
        context = watcher.context
        assert (context.only_watched, context.attended, context.recorded) == (True, True, False)
        assert [context.live(stream) for stream in ("front", "rear", "other")] == [False, True, False]
        wait_until(lambda: context.ended("front"))
        assert not context.ended("rear")
        release.set()
        wait_until(lambda: context.ended("rear"))
        assert graph.wait(10)
    written = [
        *nodes[:2],
        make_node("window", "output", watcher, "front", "rear"),
        make_node("file", "output", Ledger(), "front"),
    ]
    Graph(make_config(written))
    assert not watcher.context.only_watched
    assert not watcher.context.attended
