"""Sources that go away and come back: stand-ins for what FFmpeg cannot be made to do on request, and a real server."""

from __future__ import annotations

import os
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
from stream_seg.frame import Frame, Signal
from stream_seg.sources import live
from stream_seg.sources.live import MOST_LEFT, News, Patience, supply
from stream_seg.sources.picture import Picture, Pictures
from stream_seg.sources.reader import HELD, Reader, Taken
from stream_seg.stages.capture import Capture
from tests.support.clips import number_of, numbered, write_video
from tests.support.rtsp_server import rtsp_server

QUICK = Patience(open_s=0.3, stall_s=0.3, frozen_s=0.3)


def picture(number: int, size: tuple[int, int] = (48, 64)) -> Picture:
    noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Picture(noise, number, 1, Fraction(1, 30), time.monotonic_ns())


class Camera:
    """Each connection plays the next of `connections`; the last one over and over."""

    def __init__(self, *connections: Callable[[], Pictures]) -> None:
        self._connections = list(connections)
        self.opened = 0
        self.closed = 0

    def __call__(self) -> Pictures:
        play = self._connections[min(self.opened, len(self._connections) - 1)]
        self.opened += 1
        try:
            yield from play()
        finally:
            self.closed += 1


def running() -> Pictures:
    number = 0
    while True:
        yield picture(number)
        number += 1
        time.sleep(0.01)


def some(count: int) -> Callable[[], Pictures]:
    def play() -> Pictures:
        for number in range(count):
            yield picture(number)
            time.sleep(0.01)

    return play


def failing(reason: Reason) -> Callable[[], Pictures]:
    def play() -> Pictures:
        raise SourceError("camera: is away", reason=reason)
        yield

    return play


def news_of(camera: Camera, *, patience: Patience = QUICK, must_begin: bool = False) -> Any:
    return closing(supply(camera, stream="front", patience=patience, must_begin=must_begin))


def until(news: Iterator[News], there: Callable[[News], bool], *, within_s: float = 10.0) -> News:
    end_s = time.monotonic() + within_s
    for item in news:
        if there(item):
            return item
        assert time.monotonic() < end_s, item.signal
    raise AssertionError("it ended")


def is_up(news: News) -> bool:
    return news.taken is not None and news.signal is None


def is_reason(reason: Reason) -> Callable[[News], bool]:
    return lambda news: news.signal is not None and news.signal.reason == reason


@pytest.mark.parametrize("reason", ["refused", "auth", "dns", "not found", "broken", "ended"])
def test_it_starts_with_the_camera_off_and_says_why(reason: Reason) -> None:
    with news_of(Camera(failing(reason), failing(reason), running)) as news:
        away = until(news, is_reason(reason))
        assert (away.signal.state, away.taken) == ("down", None)
        assert until(news, is_up).fresh


def test_what_nobody_foresaw_is_said_without_its_words() -> None:
    """They may hold the address, and its password."""

    def broken() -> Pictures:
        raise RuntimeError("rtsp://me:hunter2@host/live")
        yield

    with news_of(Camera(broken), must_begin=True) as news, pytest.raises(SourceError) as failed:
        next(news)
    assert str(failed.value) == "reading failed with RuntimeError"


def test_a_source_that_must_begin_raises_what_was_wrong_but_only_at_first() -> None:
    with news_of(Camera(failing("not found")), must_begin=True) as news, pytest.raises(SourceError, match="is away"):
        until(news, is_up)
    with news_of(Camera(some(3), failing("not found"), running), must_begin=True) as news:
        until(news, is_reason("not found"))
        until(news, is_up)


def test_a_camera_that_is_away_again_at_once_is_waited_for_longer_however_long_it_takes_to_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    def noted(_signal: Signal, seconds: float) -> Iterator[News]:
        waits.append(seconds)
        return iter(())

    def slow_to_open(count: int) -> Callable[[], Pictures]:
        def play() -> Pictures:
            time.sleep(2 * live.STEADY_S)
            yield from some(count)()

        return play

    monkeypatch.setattr(live, "_waited", noted)
    monkeypatch.setattr(live, "STEADY_S", 0.05)
    with news_of(Camera(*[slow_to_open(1)] * 3, slow_to_open(20), running)) as news:
        until(news, lambda item: len(waits) == 4 and is_up(item))
    assert 0.125 <= waits[0] <= 0.25 < waits[1] <= 0.5 < waits[2] <= 1
    assert waits[3] <= 0.25  # after a connection that held


def spinning() -> Pictures:
    """A demuxer that answers nobody, until the test is over."""
    while not OVER.is_set():
        sum(range(1000))
        time.sleep(0.001)
    return
    yield


def silent_after_three() -> Pictures:
    yield from some(3)()
    yield from spinning()


OVER = threading.Event()


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """A test leaves no thread behind but those that its stand-ins hold, and these end here."""
    OVER.clear()
    before = threading.active_count()
    yield
    OVER.set()
    end_s = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end_s, threading.enumerate()
        time.sleep(0.01)


def test_a_reader_that_spins_is_cut_off_and_another_one_opened() -> None:
    with news_of(Camera(silent_after_three, running)) as news:
        until(news, is_up)
        began_s = time.monotonic()
        stalled = until(news, is_reason("no data"))
        assert 0.25 < time.monotonic() - began_s < 1
        assert stalled.signal.state == "stalled"
        until(news, is_up)


class Waiting:
    """A reader at which `waiting` pictures wait whatever the time, and then none; its clock moves only with it."""

    alive, ns = True, 10**12

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting

    def monotonic_ns(self) -> int:
        return self.ns

    def take(self, timeout_s: float) -> Taken | None:
        assert timeout_s >= 0
        if not self.waiting:
            self.ns += round(timeout_s * 1e9)
            return None
        self.waiting -= 1
        return Taken(picture(self.waiting), Counter())

    def leave(self) -> None:
        pass


def test_a_pause_of_who_takes_is_no_silence_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Waiting(1 + HELD)
    monkeypatch.setattr(live, "Reader", lambda *_, **__: reader)
    monkeypatch.setattr(live, "time", reader)
    with news_of(Camera(running)) as news:
        assert is_up(next(news))
        reader.ns += 10**10
        assert all(is_up(next(news)) for _ in range(HELD))
        last_ns = reader.ns
        gone = next(news)
    assert (gone.signal.state, gone.signal.reason) == ("stalled", "no data")
    assert reader.ns - last_ns == pytest.approx(QUICK.stall_s * 1e9, abs=1)


def test_readers_that_hang_for_ever_are_bounded() -> None:
    camera = Camera(spinning)
    with news_of(camera, patience=Patience(0.02, 0.02, None)) as news:
        end_s = time.monotonic() + 3
        until(news, lambda _: time.monotonic() > end_s)
        assert camera.opened == MOST_LEFT


def test_the_same_picture_is_called_frozen_and_the_camera_is_left_alone() -> None:
    def frozen() -> Pictures:
        for number in range(10_000):
            yield picture(1 if number < 100 else number)
            time.sleep(0.01)

    camera = Camera(frozen)
    with news_of(camera) as news:
        began_s = time.monotonic()
        found = until(news, is_reason("frozen"))
        assert time.monotonic() - began_s < 1
        assert (found.signal.state, found.taken is None) == ("stalled", False)
        until(news, is_up)
        assert camera.opened == 1
    assert camera.closed <= 1


def test_pictures_that_nobody_takes_are_dropped_and_counted_but_none_is_lost_from_the_count() -> None:
    reader = Reader(some(50), name="front")
    while reader.alive:
        time.sleep(0.01)
    taken = [reader.take(1) for _ in range(HELD)]
    assert [item.picture.pts for item in taken if item] == list(range(50 - HELD, 50))
    assert sum(item.missed["late"] for item in taken if item) == 50 - HELD
    with pytest.raises(SourceError) as ended:
        reader.take(1)
    assert ended.value.reason == "ended"


def capturing(uri: str, **keys: Any) -> Any:
    return closing(Capture(uri=uri, stream="front", **keys)(iter(())))


def frame_that(
    frames: Iterator[Frame], there: Callable[[Frame], bool], *, within_s: float = 15.0
) -> tuple[Frame, float]:
    """The first frame that is so, and the seconds until it came; numbers and times must grow all the way."""
    began_s, last = time.monotonic(), None
    for frame in frames:
        if last is not None:
            assert frame.seq == last.seq + 1 + sum(frame.missed.values())
            assert frame.pts * frame.time_base > last.pts * last.time_base
        last = frame
        if there(frame):
            return frame, time.monotonic() - began_s
        assert time.monotonic() - began_s < within_s, frame.signal
    raise AssertionError("it ended")


def up(frame: Frame) -> bool:
    return frame.signal is None


def away(frame: Frame) -> bool:
    return frame.signal is not None


def for_a(seconds: float) -> Callable[[Frame], bool]:
    end_s = time.monotonic() + seconds
    return lambda _: time.monotonic() > end_s


def resources() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def test_eight_outages_of_a_real_camera_leave_nothing_behind(unused_port: int) -> None:
    """Killed and hung in turn, with another size after every return."""
    before = resources()
    with capturing(f"rtsp://127.0.0.1:{unused_port}/live", stall_s=0.5, open_timeout_s=1) as frames:
        assert frame_that(frames, away)[0].image.shape == (360, 640, 3)
        for cycle in range(4):
            size = (320, 240) if cycle % 2 else (160, 120)
            with rtsp_server(unused_port, size=f"{size[0]}x{size[1]}") as (_, server):
                back, _ = frame_that(frames, up)
                assert back.image.shape == (size[1], size[0], 3)
                frame_that(frames, for_a(0.8))
                server.send_signal(signal.SIGSTOP)
                gone, took_s = frame_that(frames, away)
                assert gone.signal is not None
                assert (gone.signal.state, gone.signal.reason, took_s < 1.2) == ("stalled", "no data", True)
                server.send_signal(signal.SIGCONT)
                _, took_s = frame_that(frames, up)
                assert took_s < 2
            gone, took_s = frame_that(frames, away)
            assert gone.signal is not None
            assert gone.signal.reason in ("ended", "broken", "refused", "no data")
            assert took_s < 1.2
            assert gone.image.shape == (size[1], size[0], 3)
    end_s = time.monotonic() + 5
    while any(now > then + 2 for now, then in zip(resources(), before, strict=True)):
        assert time.monotonic() < end_s, (resources(), before)
        time.sleep(0.05)


def test_the_defaults_notice_a_hang_in_three_and_a_half_seconds_and_a_return_in_two() -> None:
    with rtsp_server() as (port, server), capturing(f"rtsp://127.0.0.1:{port}/live") as frames:
        frame_that(frames, up)
        server.send_signal(signal.SIGSTOP)
        gone, took_s = frame_that(frames, away)
        assert gone.signal is not None
        assert gone.signal.reason == "no data"
        assert 2.5 < took_s <= 3.5
        server.send_signal(signal.SIGCONT)
        assert frame_that(frames, up)[1] <= 2


def test_a_camera_that_shows_one_picture_is_frozen_after_five_seconds() -> None:
    with rtsp_server(pattern="white") as (port, _), capturing(f"rtsp://127.0.0.1:{port}/live") as frames:
        frame_that(frames, up)
        frozen, took_s = frame_that(frames, away)
        assert frozen.signal is not None
        assert (frozen.signal.state, frozen.signal.reason) == ("stalled", "frozen")
        assert 4.5 < took_s < 6


@pytest.mark.parametrize(
    ("address", "reason"), [("user:wrong@127.0.0.1:{}/live", "auth"), ("user:right@127.0.0.1:{}/none", "not found")]
)
def test_a_camera_that_refuses_says_why_and_the_right_password_opens_it(
    address: str, reason: str, tmp_path: Path
) -> None:
    with rtsp_server(password="right") as (port, _):
        with capturing("rtsp://" + address.format(port)) as frames:
            refused, _ = frame_that(frames, lambda frame: frame.signal is not None and frame.signal.reason is not None)
            assert refused.signal is not None
            assert (refused.signal.state, refused.signal.reason) == ("down", reason)
        (tmp_path / "password").write_text("right\n")
        with capturing(f"rtsp://user@127.0.0.1:{port}/live", password_file=tmp_path / "password") as frames:
            frame_that(frames, up)
        os.environ["FRONT_PASSWORD"] = "right"
        with capturing(f"rtsp://user:${{FRONT_PASSWORD}}@127.0.0.1:{port}/live") as frames:
            frame_that(frames, up)


def test_a_host_without_an_address_is_dns() -> None:
    with capturing("rtsp://camera.invalid/live") as frames:
        frame, _ = frame_that(frames, lambda frame: frame.signal is not None and frame.signal.reason is not None)
    assert frame.signal is not None
    assert frame.signal.reason == "dns"


def test_a_file_in_a_loop_plays_at_its_own_pace_and_without_end(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", (numbered(n) for n in range(10)), rate=50)
    with capturing(str(clip), loop=True, frames=25) as frames:
        first = next(frames)
        began_s, rest = time.monotonic(), list(frames)
        took_s = time.monotonic() - began_s
    assert [number_of(frame.image) for frame in [first, *rest]] == [n % 10 for n in range(25)]
    assert 0.4 < took_s < 2
    times = [frame.pts * frame.time_base for frame in [first, *rest]]
    assert times == sorted(set(times))
