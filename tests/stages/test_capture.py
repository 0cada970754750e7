"""`capture`: frames, times and errors of files, images, http and RTSP."""

import gc
import os
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from socket import create_server
from typing import Any

import av
import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from stream_seg.errors import ConfigError, SourceError, StreamSegError
from stream_seg.frame import Frame, PendingImage
from stream_seg.sources.video import DecodedFrames, decode_video
from stream_seg.stages.capture import Capture
from stream_seg.types import Image
from tests.sources.test_images import oriented, png_of
from tests.support.clips import number_image, read_number, write_video
from tests.support.rtsp_server import rtsp_server
from tests.support.time_limits import TimeLimit

CLIPS = {
    "solidWhiteRight.mp4": 221,
    "project_video_cut.mp4": 76,
    "test_video.mp4": 38,
    "highway_1024_512.mp4": 199,
    "person_walking_intel.mp4": 1394,
}


def capture(uri: object, **keys: Any) -> list[Frame]:
    """Return the frames of one connection: a live source that reconnects never ends."""
    return list(Capture(uri=str(uri), reconnect=False, **keys)(iter(())))


def capture_until_error(uri: object, **keys: Any) -> tuple[list[Frame], StreamSegError]:
    frames: list[Frame] = []
    with pytest.raises(StreamSegError) as caught:
        frames.extend(Capture(uri=str(uri), reconnect=False, **keys)(iter(())))
    return frames, caught.value


def clip(path: Path, count: int = 20, **keys: Any) -> Path:
    return write_video(path, (number_image(n) for n in range(count)), **keys)


def numbers(frames: list[Frame]) -> list[int]:
    return [read_number(frame.image) for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
        ("a:b%03d.mp4", "libx264"),
    ],
)
def test_numbered_frames_come_out_in_order(tmp_path: Path, name: str, codec: str) -> None:
    path = clip(tmp_path / name, codec=codec, time_base=Fraction(1, 25))
    start_ns = time.monotonic_ns()
    frames = capture(path, stream="front")
    assert numbers(frames) == [frame.seq for frame in frames] == list(range(20))
    assert {frame.stream for frame in frames} == {"front"}
    assert all(not frame.missed for frame in frames)
    stamps = [start_ns, *(frame.captured_ns for frame in frames), time.monotonic_ns()]
    assert stamps == sorted(stamps)
    assert Capture(uri=str(path)).expected_frames() == 20


def test_images_are_new_writable_and_contiguous(tmp_path: Path) -> None:
    first, second, *_ = capture(write_video(tmp_path / "a.mp4", [number_image(0, (322, 242))] * 3))
    assert first.image.shape == (242, 322, 3)
    assert first.image.flags.c_contiguous
    assert not np.shares_memory(first.image, second.image)
    first.image[:] = 0


def test_the_name_of_a_protocol_is_a_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "b.mp4", 3).rename("concat:b.mp4")
    assert numbers(capture("concat:b.mp4")) == [0, 1, 2]
    clip(tmp_path / "a.mp4", 3)
    _, error = capture_until_error("concat:a.mp4|a.mp4")
    assert "no such file" in str(error)


def test_times_are_those_of_the_source_also_at_a_variable_frame_rate(tmp_path: Path) -> None:
    milliseconds = [0, 40, 55, 200, 1200, 1233]
    frames = capture(clip(tmp_path / "a.mkv", 6, pts=milliseconds))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(ms, 1000) for ms in milliseconds]


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_the_display_matrix_is_applied(tmp_path: Path, rotation: int) -> None:
    upright = number_image(1234)
    stored = np.rot90(upright, -rotation // 90).copy()
    (frame,) = capture(write_video(tmp_path / "a.mp4", [stored], rotation=rotation, options={"crf": "1"}))
    assert frame.image.shape == upright.shape
    assert read_number(frame.image) == 1234
    assert np.abs(frame.image.astype(int) - upright).mean() < 5


def test_decoded_frames_are_released(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 40)
    gc.collect()
    gc.disable()  # a frame in a reference cycle stays until it runs
    try:
        capture(path)
        remaining = sum(type(one) is av.VideoFrame for one in gc.get_objects())  # isinstance runs foreign code
    finally:
        gc.enable()
    assert remaining < 10


STORED: dict[int, Callable[[Image], Image]] = {  # by EXIF orientation: an upright image as it is stored in the file
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: np.rot90,
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, -1),
}
MATRICES = [(1, 0, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0)]
MATRICES += [(0, -1, 1, 0)]


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".mp4"])
def test_mirrored_and_rotated_images_and_videos_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright, path = number_image(1234), tmp_path / f"a{suffix}"
    stored = np.ascontiguousarray(STORED[orientation](upright))
    if suffix == ".mp4":
        data = bytearray(write_video(path, [stored], options={"crf": "1"}).read_bytes())
        struct.pack_into(">2i4x2i", data, data.index(b"tkhd") + 44, *(n << 16 for n in MATRICES[orientation - 1]))
        path.write_bytes(data)
    else:
        path.write_bytes(oriented(suffix, stored, orientation))
    (frame,) = capture(path)
    assert frame.image.shape == upright.shape
    assert frame.image.flags.c_contiguous
    assert np.abs(frame.image.astype(int) - upright).mean() < 5


def test_capture_stops_after_the_requested_number_of_frames(tmp_path: Path) -> None:
    assert numbers(capture(clip(tmp_path / "a.mp4"), frames=7)) == list(range(7))


def test_closing_the_generator_closes_the_file(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    frames = Capture(uri=str(path))(iter(()))
    next(frames)
    assert path in open_files()
    frames.close()  # type: ignore[attr-defined]
    assert path not in open_files()


def open_files() -> set[Path]:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not list open files in /proc")
    return {Path(os.readlink(link)) for link in descriptors.iterdir() if link.is_symlink()}


def test_damaged_frames_are_counted_and_skipped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = clip(tmp_path / "a.mp4", 60, options={"g": "10", "bf": "0"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    frames = capture(path)
    missed = sum(frame.missed.get("decode_error", 0) for frame in frames)
    assert missed > 0
    assert len(frames) + missed == 60
    assert [frame.seq for frame in frames][-1] == 59
    seqs = [-1, *(frame.seq for frame in frames)]
    assert [b - a - 1 for a, b in pairwise(seqs)] == [sum(f.missed.values()) for f in frames]
    assert numbers(frames[-20:]) == list(range(40, 60))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "movflags", "reason"),
    [
        ("a.mp4", "faststart", "its index lists 60 frames"),
        ("a.mp4", "frag_keyframe+empty_moov", "its last frame is incomplete"),
    ],
)
def test_frames_before_a_truncation_are_delivered(tmp_path: Path, name: str, movflags: str, reason: str) -> None:
    container_options = {"movflags": movflags} if movflags else {}
    path = clip(tmp_path / name, 60, container_options=container_options, options={"bf": "0", "crf": "1"})
    whole = packet_sizes(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    readable = sum(a == b for a, b in zip(whole, packet_sizes(path), strict=False))
    assert 20 < readable < 60
    frames, error = capture_until_error(path)
    assert numbers(frames) == list(range(readable))
    assert isinstance(error, SourceError)
    assert str(error) == f"{path}: breaks off after frame {readable - 1} ({reason})"


def packet_sizes(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [packet.size for packet in container.demux(video=0) if packet.size]


def test_a_file_without_its_index_is_rejected(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"moov")])
    _, error = capture_until_error(path)
    assert str(error) == f"{path}: cannot be opened: the file ends before its index (moov)"


def test_a_recording_appended_to_another_keeps_its_length(tmp_path: Path) -> None:
    parts = [clip(tmp_path / f"{count}.ts", count).read_bytes() for count in (40, 50)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    frames = capture(tmp_path / "joined.ts")
    assert numbers(frames) == [*range(40), *range(50)]
    steps = {(b.pts - a.pts) * b.time_base for a, b in pairwise(frames)}
    assert steps == {Fraction(1, 25)}


@pytest.mark.parametrize(
    ("key", "name", "kinds"),
    [("rate", "a.mp4", "image files and cameras"), ("size", "a.mp4", "cameras"), ("size", "a.png", "cameras")],
)
def test_a_key_for_other_kinds_of_source_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, name: str, kinds: str
) -> None:
    clip(tmp_path / "a.mp4", 3)
    cv2.imwrite(str(tmp_path / "a.png"), number_image(0))
    capture(tmp_path / "a.png", rate=10)
    capture(tmp_path / "a.mp4")
    assert caplog.text == ""
    capture(tmp_path / name, **{key: 5 if key == "rate" else "64x64"})
    (record,) = caplog.records
    assert record.getMessage() == f"capture.{key}: applies to {kinds} only, not to {tmp_path / name}"


def test_a_raw_stream_without_times_gets_times(tmp_path: Path) -> None:
    frames = capture(clip(tmp_path / "a.h264", options={"bf": "0"}))
    assert numbers(frames) == list(range(20))
    assert all(b.pts > a.pts for a, b in pairwise(frames))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"no video at all\n" * 50, "not a video"),
        ("text.txt", b"no video at all\n" * 50, "no video"),
        ("huge.png", png_of(20_000, 20_000), "20000x20000 pixels, more than max_pixels"),
        ("bad.png", b"no image", "no frame can be decoded"),
        ("missing.png", None, "no image"),
    ],
)
def test_the_error_for_a_bad_file_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    frames, error = capture_until_error(tmp_path / name)
    assert frames == []
    assert isinstance(error, SourceError)
    assert str(error).startswith(str(tmp_path / name))
    assert message in str(error)
    assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")


def test_a_video_of_more_than_max_pixels_is_rejected(tmp_path: Path) -> None:
    _, error = capture_until_error(clip(tmp_path / "a.mp4", 3), max_pixels=320 * 240 - 1)
    assert "320x240 pixels, more than max_pixels (76799) allows" in str(error)
    assert len(capture(tmp_path / "a.mp4", max_pixels=320 * 240)) == 3


def test_a_folder_of_images_is_read_in_natural_order(tmp_path: Path) -> None:
    suffixes = ["jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "PNG"]
    for number in range(12):
        size = (320, 240) if number % 2 else (400, 300)
        cv2.imwrite(str(tmp_path / f"f{number}.{suffixes[number % len(suffixes)]}"), number_image(number, size))
    (tmp_path / "notes.txt").write_text("no image")
    frames = capture(tmp_path, rate=10)
    assert numbers(frames) == list(range(12))
    assert {frame.image.shape for frame in frames} == {(240, 320, 3), (300, 400, 3)}
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(n, 10) for n in range(12)]
    assert numbers(capture(tmp_path / "*.png")) == [2, 10]
    assert Capture(uri=str(tmp_path)).expected_frames() == 12


def test_an_image_file_looks_as_opencv_reads_it(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "bmp", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        cv2.imwrite(str(path), number_image(7, (1400, 600)))
        (frame,) = capture(path)
        assert np.abs(frame.image.astype(int) - cv2.imread(str(path))).mean() < 1.5


def test_an_unreadable_image_is_counted(tmp_path: Path) -> None:
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), number_image(number))
    whole = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "0.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.jpg").write_bytes(b"no image")
    frames = capture(tmp_path)
    assert [(frame.seq, frame.pts, dict(frame.missed)) for frame in frames] == [
        (1, 1, {"decode_error": 1}),
        (3, 3, {"decode_error": 1}),
        (4, 4, {}),
    ]
    (tmp_path / "4.jpg").write_bytes(b"no image")
    source = Capture(uri=str(tmp_path))(iter(()))
    assert [next(source).seq, next(source).seq] == [1, 3]
    with pytest.raises(StopIteration) as end:
        next(source)
    assert end.value.value == {"decode_error": 1}


def test_the_error_for_a_folder_without_images_lists_the_suffixes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    _, error = capture_until_error(tmp_path)
    assert "contains no image; an image ends in .jpg, .jpeg, .png" in str(error)


def test_the_error_for_a_missing_camera_lists_the_cameras() -> None:
    _, error = capture_until_error("/dev/video9876")
    assert "/dev/video9876: no such camera; cameras here: " in str(error)


def test_a_synthetic_input_is_rejected() -> None:
    _, error = capture_until_error("synth://road")
    assert isinstance(error, ConfigError)


@pytest.mark.parametrize(
    "keys", [{"rate": 0}, {"size": "large"}, {"transport": "pigeon"}, {"threads": -1}, {"colour": 1}, {"frames": 0}]
)
def test_keys_are_checked(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Capture(uri="a.mp4", **keys)


@contextmanager
def serving(body: bytes, *, stall: bool = False, status: int = 200) -> Iterator[str]:
    """Run an http server that answers every request with `body`; with `stall` it promises more and goes silent."""
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + stall * 1_000_000))
            self.end_headers()
            self.wfile.write(body)
            if stall:
                self.wfile.flush()
                closing.wait()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        closing.set()
        server.shutdown()


def test_a_video_is_read_over_http(tmp_path: Path) -> None:
    with serving(clip(tmp_path / "a.ts").read_bytes()) as address:
        assert numbers(capture(f"{address}/a.ts")) == list(range(20))


def test_the_error_for_http_404_contains_no_password() -> None:
    with serving(b"", status=404) as address:
        _, error = capture_until_error(address.replace("://", "://user:hunter2@") + "/a.mp4?token=hunter2")
    assert f"{address}/a.mp4?…: cannot be opened: 404" in str(error)
    assert "hunter2" not in "".join(traceback.format_exception(error))


def is_pending(frame: Frame) -> bool:
    return isinstance(vars(frame)["image"], PendingImage)


def test_live_images_are_converted_when_they_are_read_and_recorded_ones_at_once(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.ts", 6)
    recorded, looped = capture(path), list(Capture(uri=str(path), loop=True, frames=6)(iter(())))
    assert not any(map(is_pending, recorded))
    assert all(map(is_pending, looped))
    with serving(path.read_bytes()) as address:
        streamed = capture(f"{address}/live")
        followed = list(Capture(uri=f"{address}/live", frames=6)(iter(())))
    assert all(map(is_pending, [*streamed, *followed]))
    for frames in (looped, streamed, followed):
        assert all(np.array_equal(frame.image, same.image) for frame, same in zip(frames, recorded, strict=True))


@pytest.mark.parametrize(("keys", "threads"), [({}, 0), ({"loop": True}, 1), ({"loop": True, "threads": 3}, 3)])
def test_a_live_source_has_one_decoder_thread(
    keys: dict[str, Any], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def decode(*arguments: Any, threads: int, **others: Any) -> DecodedFrames:
        opened.append(threads)
        return decode_video(*arguments, threads=threads, **others)

    monkeypatch.setattr("stream_seg.stages.capture.decode_video", decode)
    list(Capture(uri=str(clip(tmp_path / "a.mp4")), frames=2, **keys)(iter(())))
    assert opened == [threads]


def test_a_stream_that_goes_silent_ends_after_its_timeout(tmp_path: Path) -> None:
    body = clip(tmp_path / "a.ts", 60, options={"bf": "0", "g": "10"}).read_bytes()
    with serving(body, stall=True) as address:
        frames, error = capture_until_error(f"{address}/live", read_timeout_s=0.3, open_timeout_s=0.3)
    assert len(frames) > 20
    assert numbers(frames) == list(range(len(frames)))
    assert f"breaks off after frame {len(frames) - 1} (no data arrived in time)" in str(error)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_silent_host_is_abandoned_after_the_timeout(scheme: str, time_limit: TimeLimit) -> None:
    with create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start_s = time.monotonic()
        with time_limit(2):
            _, error = capture_until_error(f"{scheme}://user:hunter2@127.0.0.1:{port}/live", open_timeout_s=0.3)
    assert time.monotonic() - start_s >= 0.3
    assert f"{scheme}://127.0.0.1:{port}/live: cannot be opened: no data arrived in time" in str(error)
    assert "hunter2" not in "".join(traceback.format_exception(error))


def test_an_unreachable_host_is_an_error_at_once(unused_port: int) -> None:
    _, error = capture_until_error(f"rtsp://user:hunter2@127.0.0.1:{unused_port}/live")
    assert f"rtsp://127.0.0.1:{unused_port}/live: cannot be opened: Connection refused" in str(error)


@pytest.mark.parametrize(("name", "count"), CLIPS.items())
def test_every_frame_of_real_clips_is_captured(data: Path, name: str, count: int) -> None:
    path = str(data / "videos" / name)
    assert Capture(uri=path).expected_frames() == count
    last, number = -1, -1
    for number, frame in enumerate(Capture(uri=path)(iter(()))):
        assert (frame.seq, dict(frame.missed)) == (number, {})
        assert frame.pts > last
        last = frame.pts
    assert number + 1 == count


@pytest.fixture(scope="module")
def rtsp_port() -> Iterator[int]:
    with rtsp_server() as (port, _):
        yield port


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_is_read_over_tcp_and_udp(rtsp_port: int, transport: str) -> None:
    frames = capture(f"RTSP://user:p@ss@127.0.0.1:{rtsp_port}/live", transport=transport, frames=10)
    assert [frame.seq for frame in frames] == list(range(10))
    assert all(b.pts > a.pts for a, b in pairwise(frames))
    assert frames[-1].image.shape == (240, 320, 3)
    _, error = capture_until_error(f"rtsp://user:hunter2@127.0.0.1:{rtsp_port}/none")
    assert f"rtsp://127.0.0.1:{rtsp_port}/none: cannot be opened: 404" in str(error)
