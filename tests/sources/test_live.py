"""Sources that disconnect and return: fake connections for faults that FFmpeg cannot produce, and a real server."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame, PendingImage, Signal
from stream_seg.sources import live
from stream_seg.sources.live import (
    LONGEST_DELAY_S,
    MAX_HANGING,
    Timeouts,
    Update,
    follow_source,
    retry_delay_s,
)
from stream_seg.sources.reader import QUEUE_LENGTH, QueuedFrame, Reader
from stream_seg.sources.sample import Sample
from stream_seg.sources.video import DecodedFrame, DecodedFrames
from stream_seg.stages.capture import Capture
from stream_seg.types import Image
from tests.support.clips import number_image, read_number, write_video
from tests.support.program import wait_until
from tests.support.rtsp_server import rtsp_server
from tests.support.time_limits import TimeLimit

QUICK = Timeouts(open_s=0.3, stall_s=0.3, frozen_s=0.3)


def decoded(number: int, size: tuple[int, int] = (48, 64)) -> DecodedFrame:
    noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return DecodedFrame(noise, number, 1, Fraction(1, 30), time.monotonic_ns())


class Camera:
    """A source whose connections play one of `connections` each, the last one again and again."""

    def __init__(self, *connections: Callable[[], DecodedFrames]) -> None:
        self._connections = list(connections)
        self.opened = 0
        self.closed = 0

    def __call__(self) -> DecodedFrames:
        play = self._connections[min(self.opened, len(self._connections) - 1)]
        self.opened += 1
        try:
            yield from play()
        finally:
            self.closed += 1


def endless() -> DecodedFrames:
    number = 0
    while True:
        yield decoded(number)
        number += 1
        time.sleep(0.01)


def finite(count: int) -> Callable[[], DecodedFrames]:
    def play() -> DecodedFrames:
        for number in range(count):
            yield decoded(number)
            time.sleep(0.01)

    return play


def failing(reason: Reason) -> Callable[[], DecodedFrames]:
    def play() -> DecodedFrames:
        raise SourceError("camera: unreachable", reason=reason)
        yield

    return play


def following(camera: Camera, *, timeouts: Timeouts = QUICK, fail_at_start: bool = False) -> Any:
    return closing(follow_source(camera, stream="front", timeouts=timeouts, fail_at_start=fail_at_start))


def until(updates: Iterator[Update], condition: Callable[[Update], bool], *, within_s: float = 60.0) -> Update:
    """Return the first update that meets the condition."""
    end_s = time.monotonic() + within_s
    for update in updates:
        if condition(update):
            return update
        assert time.monotonic() < end_s, update.signal
    raise AssertionError("no further update")


def is_up(update: Update) -> bool:
    return update.item is not None and update.signal is None


def has_reason(reason: Reason) -> Callable[[Update], bool]:
    return lambda update: update.signal is not None and update.signal.reason == reason


@pytest.mark.parametrize("reason", ["refused", "auth", "dns", "not found", "broken", "ended"])
def test_a_stream_starts_without_its_camera_and_reports_the_reason(reason: Reason) -> None:
    with following(Camera(failing(reason), failing(reason), endless)) as updates:
        outage = until(updates, has_reason(reason))
        assert (outage.signal.state, outage.item) == ("down", None)
        assert until(updates, is_up).connected


def test_an_unexpected_error_is_reported_without_its_message() -> None:
    """The message may contain the address, and its password."""

    def broken() -> DecodedFrames:
        raise RuntimeError("rtsp://me:hunter2@host/live")
        yield

    with following(Camera(broken), fail_at_start=True) as updates, pytest.raises(SourceError) as caught:
        next(updates)
    assert str(caught.value) == "reading failed with RuntimeError"


def test_a_source_fails_at_its_first_attempt_only() -> None:
    with (
        following(Camera(failing("not found")), fail_at_start=True) as updates,
        pytest.raises(SourceError, match="unreachable"),
    ):
        until(updates, is_up)
    with following(Camera(finite(3), failing("not found"), endless), fail_at_start=True) as updates:
        until(updates, has_reason("not found"))
        until(updates, is_up)


def test_a_camera_that_disconnects_at_once_is_retried_later_however_long_it_takes_to_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    def record(_signal: Signal, seconds: float) -> Iterator[Update]:
        waits.append(seconds)
        return iter(())

    def slow_to_open(count: int) -> Callable[[], DecodedFrames]:
        def play() -> DecodedFrames:
            time.sleep(2 * live.STEADY_S)
            yield from finite(count)()

        return play

    monkeypatch.setattr(live, "_wait", record)
    monkeypatch.setattr(live, "STEADY_S", 0.05)
    with following(Camera(*[slow_to_open(1)] * 3, slow_to_open(20), endless)) as updates:
        until(updates, lambda update: len(waits) == 4 and is_up(update))
    assert 0.125 <= waits[0] <= 0.25 < waits[1] <= 0.5 < waits[2] <= 1
    assert waits[3] <= 0.25  # after a connection that lasted


def attempt_times_s(seed: int, *, outage_s: float) -> list[float]:
    """Return the times at which a camera that is away is tried, on a simulated clock."""
    rng, now_s, times_s = random.Random(seed), 0.0, list[float]()
    while now_s < outage_s:
        times_s.append(now_s)
        now_s += retry_delay_s(len(times_s) - 1, rng.random())
    return times_s


def test_an_hour_of_outage_takes_at_most_130_attempts_and_no_delay_exceeds_the_limit() -> None:
    for seed in range(50):
        times_s = attempt_times_s(seed, outage_s=3600)
        assert 100 < len(times_s) <= 130
        delays_s = np.diff(times_s)
        assert delays_s.max() <= LONGEST_DELAY_S
        assert delays_s[0] <= 0.25
        assert times_s[4] < 4  # a camera that restarts is found soon


def test_eight_cameras_that_fail_together_do_not_return_together() -> None:
    cameras = [attempt_times_s(seed, outage_s=3600) for seed in range(8)]
    late = np.sort(np.concatenate([np.array(times_s)[10:] for times_s in cameras]))
    together = np.diff(late) < 0.1
    assert together.mean() < 0.1
    same = np.sort(np.concatenate([np.array(cameras[0])[10:]] * 8))
    assert (np.diff(same) < 0.1).mean() > 0.8  # without randomness


def test_delays_double_up_to_the_limit() -> None:
    assert [retry_delay_s(failures, 0) for failures in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]


def spinning() -> DecodedFrames:
    """A demuxer that never returns, until the test is over."""
    while not OVER.is_set():
        sum(range(1000))
        time.sleep(0.001)
    return
    yield


def silent_after_three() -> DecodedFrames:
    yield from finite(3)()
    yield from spinning()


OVER = threading.Event()


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    """Check that a test leaves no thread behind, once its fake connections have ended."""
    OVER.clear()
    before = threading.active_count()
    yield
    OVER.set()
    end_s = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end_s, threading.enumerate()
        time.sleep(0.01)


def test_a_reader_that_spins_is_abandoned_and_another_one_opened(time_limit: TimeLimit) -> None:
    with following(Camera(silent_after_three, endless)) as updates:
        until(updates, is_up)
        with time_limit(1):
            stalled = until(updates, has_reason("no data"))
        assert stalled.signal.state == "stalled"
        until(updates, is_up)


class FakeReader:
    """A reader with `queued` frames that are there at any time, and none after; its clock moves only with it."""

    alive, ns = True, 10**12

    def __init__(self, queued: int) -> None:
        self.queued = queued

    def monotonic_ns(self) -> int:
        return self.ns

    def take(self, timeout_s: float) -> QueuedFrame | None:
        assert timeout_s >= 0
        if not self.queued:
            self.ns += round(timeout_s * 1e9)
            return None
        self.queued -= 1
        return QueuedFrame(decoded(self.queued), Counter())

    def abandon(self) -> None:
        pass


def test_a_pause_of_the_consumer_is_no_stall_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = FakeReader(1 + QUEUE_LENGTH)
    monkeypatch.setattr(live, "Reader", lambda *_, **__: reader)
    monkeypatch.setattr(live, "time", reader)
    with following(Camera(endless)) as updates:
        assert is_up(next(updates))
        reader.ns += 10**10
        assert all(is_up(next(updates)) for _ in range(QUEUE_LENGTH))
        last_ns = reader.ns
        outage = next(updates)
    assert (outage.signal.state, outage.signal.reason) == ("stalled", "no data")
    assert reader.ns - last_ns == pytest.approx(QUICK.stall_s * 1e9, abs=1)


class SampledReader(FakeReader):
    """A reader of frames at 10 per second that all have one sample, and whose conversion counts."""

    def __init__(self) -> None:
        super().__init__(10**6)
        self.converted = 0

    def take(self, timeout_s: float) -> QueuedFrame:
        self.ns += 10**8
        sample = Sample(np.zeros(4, np.uint8), 1)
        return QueuedFrame(decoded(0)._replace(image=PendingImage(self.convert, (48, 64, 3)), sample=sample), Counter())

    def convert(self) -> Image:
        self.converted += 1
        return np.zeros((48, 64, 3), np.uint8)


@pytest.mark.parametrize("frozen_s", [2.0, None])
def test_a_frozen_image_is_noticed_without_a_conversion(
    frozen_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = SampledReader()
    monkeypatch.setattr(live, "Reader", lambda *_, **__: reader)
    monkeypatch.setattr(live, "time", reader)
    with following(Camera(endless), timeouts=Timeouts(5.0, 3.0, frozen_s)) as updates:
        frames = live.draw_live_frames(updates, "front")
        signals = [frame.signal.reason if frame.signal else None for frame, _ in zip(frames, range(30), strict=False)]
    frozen = 0 if frozen_s is None else 10
    assert signals == [None] * (30 - frozen) + ["frozen"] * frozen
    assert reader.converted in (frozen, frozen + 1), "only for the banner"


def test_the_number_of_hanging_readers_is_limited() -> None:
    camera = Camera(spinning)
    with following(camera, timeouts=Timeouts(0.02, 0.02, None)) as updates:
        until(updates, lambda _: camera.opened == MAX_HANGING)
        end_s = time.monotonic() + 1
        until(updates, lambda _: time.monotonic() > end_s)
        assert camera.opened == MAX_HANGING


def test_an_unchanged_image_is_frozen_and_the_connection_stays(time_limit: TimeLimit) -> None:
    def frozen() -> DecodedFrames:
        for number in range(10_000):
            yield decoded(1 if number < 100 else number)
            time.sleep(0.01)

    camera = Camera(frozen)
    with following(camera) as updates:
        with time_limit(1):
            frozen_update = until(updates, has_reason("frozen"))
        assert (frozen_update.signal.state, frozen_update.item is None) == ("stalled", False)
        until(updates, is_up)
        assert camera.opened == 1
    assert camera.closed <= 1


def test_frames_that_are_not_taken_are_dropped_and_every_one_is_counted() -> None:
    reader = Reader(finite(50), name="front")
    while reader.alive:
        time.sleep(0.01)
    items = [reader.take(1) for _ in range(QUEUE_LENGTH)]
    assert [item.frame.pts for item in items if item] == list(range(50 - QUEUE_LENGTH, 50))
    assert sum(item.missed["late"] for item in items if item) == 50 - QUEUE_LENGTH
    with pytest.raises(SourceError) as ended:
        reader.take(1)
    assert ended.value.reason == "ended"


def capturing(uri: str, **keys: Any) -> Any:
    return closing(Capture(uri=uri, stream="front", **keys)(iter(())))


def frame_that(
    frames: Iterator[Frame], condition: Callable[[Frame], bool], *, within_s: float = 60.0
) -> tuple[Frame, float]:
    """Return the first frame that meets the condition, and the seconds until it came. Numbers and times must grow."""
    start_s, last = time.monotonic(), None
    for frame in frames:
        if last is not None:
            assert frame.seq == last.seq + 1 + sum(frame.missed.values())
            assert frame.pts * frame.time_base > last.pts * last.time_base
        last = frame
        if condition(frame):
            return frame, time.monotonic() - start_s
        assert time.monotonic() - start_s < within_s, frame.signal
    raise AssertionError("no further frame")


def has_image(frame: Frame) -> bool:
    return frame.signal is None


def is_placeholder(frame: Frame) -> bool:
    return frame.signal is not None


def after(seconds: float) -> Callable[[Frame], bool]:
    end_s = time.monotonic() + seconds
    return lambda _: time.monotonic() > end_s


def count_resources() -> tuple[int, int]:
    """Return the numbers of open files and of threads."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def test_eight_outages_of_a_real_camera_leave_nothing_behind(unused_port: int, time_limit: TimeLimit) -> None:
    """The server is killed and hung in turn, and has another size after every return."""
    before = count_resources()
    with capturing(f"rtsp://127.0.0.1:{unused_port}/live", stall_s=0.5, open_timeout_s=1) as frames:
        assert frame_that(frames, is_placeholder)[0].image.shape == (360, 640, 3)
        for cycle in range(4):
            size = (320, 240) if cycle % 2 else (160, 120)
            with rtsp_server(unused_port, size=f"{size[0]}x{size[1]}") as (_, server):
                back, _ = frame_that(frames, has_image)
                assert back.image.shape == (size[1], size[0], 3)
                frame_that(frames, after(0.8))
                server.send_signal(signal.SIGSTOP)
                with time_limit(1.2):
                    outage, _ = frame_that(frames, is_placeholder)
                assert outage.signal is not None
                assert (outage.signal.state, outage.signal.reason) == ("stalled", "no data")
                server.send_signal(signal.SIGCONT)
                with time_limit(2):
                    frame_that(frames, has_image)
            with time_limit(1.2):
                outage, _ = frame_that(frames, is_placeholder)
            assert outage.signal is not None
            assert outage.signal.reason in ("ended", "broken", "refused", "no data")
            assert outage.image.shape == (size[1], size[0], 3)
    wait_until(lambda: all(now <= then + 2 for now, then in zip(count_resources(), before, strict=True)))


def test_the_defaults_detect_a_hang_in_three_and_a_half_seconds_and_a_return_in_two(time_limit: TimeLimit) -> None:
    with rtsp_server() as (port, server), capturing(f"rtsp://127.0.0.1:{port}/live") as frames:
        frame_that(frames, has_image)
        server.send_signal(signal.SIGSTOP)
        with time_limit(3.5):
            outage, took_s = frame_that(frames, is_placeholder)
        assert outage.signal is not None
        assert outage.signal.reason == "no data"
        assert took_s > 2
        server.send_signal(signal.SIGCONT)
        with time_limit(2):
            frame_that(frames, has_image)


def test_a_camera_that_repeats_one_image_is_frozen_after_five_seconds(time_limit: TimeLimit) -> None:
    with rtsp_server(pattern="white") as (port, _), capturing(f"rtsp://127.0.0.1:{port}/live") as frames:
        frame_that(frames, has_image)
        with time_limit(6):
            frozen, took_s = frame_that(frames, is_placeholder)
        assert frozen.signal is not None
        assert (frozen.signal.state, frozen.signal.reason) == ("stalled", "frozen")
        assert took_s > 4


@pytest.mark.parametrize(
    ("address", "reason"), [("user:wrong@127.0.0.1:{}/live", "auth"), ("user:right@127.0.0.1:{}/none", "not found")]
)
def test_the_reason_of_a_refusal_is_reported_and_the_right_password_opens_the_camera(
    address: str, reason: str, tmp_path: Path
) -> None:
    with rtsp_server(password="right") as (port, _):
        with capturing("rtsp://" + address.format(port)) as frames:
            refused, _ = frame_that(frames, lambda frame: frame.signal is not None and frame.signal.reason is not None)
            assert refused.signal is not None
            assert (refused.signal.state, refused.signal.reason) == ("down", reason)
        (tmp_path / "password").write_text("right\n")
        with capturing(f"rtsp://user@127.0.0.1:{port}/live", password_file=tmp_path / "password") as frames:
            frame_that(frames, has_image)
        os.environ["FRONT_PASSWORD"] = "right"
        with capturing(f"rtsp://user:${{FRONT_PASSWORD}}@127.0.0.1:{port}/live") as frames:
            frame_that(frames, has_image)


def test_a_host_name_that_does_not_resolve_has_the_reason_dns() -> None:
    with capturing("rtsp://camera.invalid/live") as frames:
        frame, _ = frame_that(frames, lambda frame: frame.signal is not None and frame.signal.reason is not None)
    assert frame.signal is not None
    assert frame.signal.reason == "dns"


def test_a_file_in_a_loop_plays_at_its_own_pace_without_end(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", (number_image(n) for n in range(10)), rate=50)
    with capturing(str(clip), loop=True, frames=25) as frames:
        first = next(frames)
        start_s, rest = time.monotonic(), list(frames)
        assert time.monotonic() - start_s > 0.4
    assert [read_number(frame.image) for frame in [first, *rest]] == [n % 10 for n in range(25)]
    times = [frame.pts * frame.time_base for frame in [first, *rest]]
    assert times == sorted(set(times))
