"""The part of a source: which frames are taken, and exact starts in every container."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from stream_seg.errors import ConfigError, SourceError
from stream_seg.frame import NONE_MISSED, Frame
from stream_seg.sources.excerpt import Excerpt, parse_time
from stream_seg.sources.live import Update
from stream_seg.sources.reader import QueuedFrame
from stream_seg.sources.video import DecodedFrame
from stream_seg.stages import capture as module
from stream_seg.stages.base import Context, bind
from stream_seg.stages.capture import Capture
from tests.support.clips import number_image, read_number, write_video

RATE, COUNT = 25, 200
SIZE = (96, 64)
OPEN_GROUPS = {"g": "50", "x264-params": "open-gop=1:scenecut=0:bframes=3:b-adapt=0"}
"""B-frames that are decoded after a key frame, shown before it, and lost by a seek to it."""
CLIPS: dict[str, dict[str, Any]] = {
    "open.mp4": {"options": OPEN_GROUPS, "time_base": Fraction(1, 12800)},
    "open.mkv": {"options": OPEN_GROUPS},
    "open.ts": {"options": OPEN_GROUPS, "time_base": Fraction(1, 90_000)},  # begins at 1.4 s
    "no_index.mkv": {"options": OPEN_GROUPS, "container_options": {"live": "1"}},
    "one_key_frame.mp4": {"options": {"g": "1000", "bf": "2"}},
    "fragments.mp4": {"options": OPEN_GROUPS, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "raw.h264": {"options": {"g": "50", "bf": "2"}},  # no times
    "m.avi": {"codec": "mpeg4", "options": {"g": "50"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, keys in CLIPS.items():
        write_video(folder / name, (number_image(n, SIZE) for n in range(COUNT)), rate=RATE, **keys)
    return folder


def numbers(uri: Path, **keys: Any) -> list[int]:
    """Return the numbers of the frames; none may be missing, or counted as missing."""
    frames, lost = list[Frame](), list[Mapping[str, int]]()

    def run() -> Iterator[Frame]:
        lost.append((yield from Capture(uri=str(uri), **keys)(iter(()))))

    frames.extend(run())
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert lost == [{}]
    return [read_number(frame.image) for frame in frames]


@pytest.mark.parametrize("name", CLIPS)
def test_a_start_is_exact_in_every_container(name: str, folder: Path) -> None:
    for start_s in (0, 0.05, 1.99, 2.01, 3.9, 3.96, 4.0, 4.04, 5.9, 5.96, 7.9):
        first = math.ceil(Fraction(str(start_s)) * RATE)
        assert numbers(folder / name, start_s=start_s, duration_s=0.2) == list(range(first, min(first + 5, COUNT)))
    assert numbers(folder / name, start_s=4.5) == list(range(113, COUNT))


def test_times_and_totals_follow_the_excerpt(folder: Path) -> None:
    stage = Capture(uri=str(folder / "open.mp4"), start_s="0:02", duration_s=4, fps=10)
    frames = list(stage(iter(())))
    assert stage.expected_frames() == len(frames) == 40
    assert frames[0].time_s == 2.0
    assert [read_number(frame.image) for frame in frames[:5]] == [50, 53, 55, 58, 60]
    assert Capture(uri=str(folder / "open.mp4"), start_s=2, duration_s=4, fps=10, frames=7).expected_frames() == 7


def test_a_start_behind_the_end_says_where_that_is(folder: Path) -> None:
    for name in ("open.mp4", "raw.h264"):
        with pytest.raises(SourceError, match=rf"{name}: no frame at 9 s or later; the last one is at 7\.96 s"):
            numbers(folder / name, start_s=9)


def test_damage_before_the_start_is_not_counted(tmp_path: Path) -> None:
    images = (number_image(n, SIZE) for n in range(80))
    path = write_video(tmp_path / "d.mkv", images, rate=RATE, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    content = bytearray(path.read_bytes())
    for number in (50, 70):  # a seek to 2.4 s lands before frame 50
        begin = content.index(packets[number])
        content[begin : begin + len(packets[number])] = bytes(len(packets[number]))
    path.write_bytes(content)
    frames = list(Capture(uri=str(path), start_s=2.4)(iter(())))
    assert [read_number(frame.image) for frame in frames] == [*range(60, 70), *range(71, 80)]
    assert [dict(frame.missed) for frame in frames if frame.missed] == [{"decode_error": 1}]


def test_images_are_chosen_by_number_and_others_are_not_read(tmp_path: Path) -> None:
    import cv2

    for number in range(10):
        path = tmp_path / f"{number}.png"
        path.write_bytes(b"no image")
        if number in (4, 6):
            cv2.imwrite(str(path), number_image(number, SIZE))
    stage = Capture(uri=str(tmp_path), rate=10, start_s=0.4, duration_s=0.4, fps=5)
    assert [read_number(frame.image) for frame in stage(iter(()))] == [4, 6]
    assert stage.expected_frames() == 2
    with pytest.raises(SourceError, match=r"no frame at 1 s or later; the last one is at 0\.9 s"):
        numbers(tmp_path, rate=10, start_s=1)


def test_a_loop_plays_the_excerpt_over_and_over(folder: Path) -> None:
    keys: dict[str, Any] = {"loop": True, "start_s": 4, "duration_s": 0.12, "frames": 7}
    frames = list(Capture(uri=str(folder / "open.mp4"), **keys)(iter(())))
    assert [read_number(frame.image) for frame in frames] == [100, 101, 102, 100, 101, 102, 100]


def test_a_live_source_ends_after_its_duration_and_has_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def follow(*_: Any, **__: Any) -> Iterator[Update]:
        for number in range(1000):
            frame = DecodedFrame(number_image(number, SIZE), number, 1, Fraction(1, 10), number * 10**8)
            yield Update(QueuedFrame(frame, NONE_MISSED), None, number == 0)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "follow_source", follow)
    frames = list(Capture(uri="rtsp://host/x", duration_s=2)(iter(())))
    assert [read_number(frame.image) for frame in frames] == list(range(20))
    with pytest.raises(ConfigError, match=r"cam\.start_s: rtsp://host/x is live"):
        bind(Capture(uri="rtsp://host/x", start_s=1), Context(name="cam"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1:30", 90), ("01:02:03.5", 3723.5), ("0.04", 0.04), ("100:00", 6000), (5, 5)]
)
def test_a_time_is_written_in_seconds_or_as_a_clock(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1:60", "1:61:00", "1:2:3:4", "1:", "1m"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected seconds or \[HH:\]MM:SS"):
        parse_time(text)


@pytest.mark.parametrize(
    ("rate", "fps", "taken"),
    [
        (30, 15, [0, 2, 4, 6, 8]),
        (30, 10, [0, 3, 6, 9, 12]),
        (30, 25, [0, 2, 3, 4, 5]),
        (60, 15, [0, 4, 8, 12, 16]),
        (240, 240, [0, 1, 2, 3, 4]),
        (24, 30, [0, 1, 2, 3, 4]),
    ],
)
def test_a_frame_rate_is_exact_also_where_times_are_rounded_to_milliseconds(
    rate: int, fps: int, taken: list[int]
) -> None:
    for times in (
        [Fraction(n, rate) for n in range(240)],
        [Fraction(round(1000 * n / rate), 1000) for n in range(240)],
    ):
        excerpt = Excerpt(fps=fps)
        taken_here = [number for number, time_s in enumerate(times) if excerpt.choose(time_s) == "take"]
        assert taken_here[:5] == taken
        assert len(taken_here) == Excerpt(fps=fps).count(240, Fraction(rate)) == min(240, 240 * fps // rate)


def test_a_clock_that_restarts_loses_no_frames() -> None:
    excerpt = Excerpt(fps=5)
    times = [Fraction(n, 10) for n in (*range(100), *range(100))]
    assert sum(excerpt.choose(time_s, interval_s=Fraction(1, 10)) == "take" for time_s in times) == 100
