"""Damaged, truncated and encrypted videos: every frame is delivered or counted, with any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.container import InputContainer
from av.video.stream import VideoStream

from stream_seg.errors import SourceError
from stream_seg.sources.decode import TruncatedError, decode_frames
from stream_seg.stages.capture import Capture
from tests.stages.test_capture import capture_until_error, serving
from tests.support.clips import number_image, read_number, write_video
from tests.support.damage import Change, change_packets, flip_bits, halve, scramble, zero

SIZE = (96, 64)
GROUPS = {"g": "10", "bf": "2"}
CODECS: dict[str, dict[str, Any]] = {
    "h264": {"options": GROUPS},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=10:bframes=2:log-level=none"}},
    "vp8": {
        "codec": "libvpx",
        "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"},
    },
    "vp9": {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime"}},
    "mpeg2": {"codec": "mpeg2video", "options": GROUPS},
    "prores": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ffv1": {"codec": "ffv1"},
}


def clip(path: Path, count: int = 40, **keys: Any) -> Path:
    images = (number_image(number, SIZE) for number in range(count))
    return write_video(path, images, time_base=Fraction(1, 25), **keys)


def read(path: object, **keys: Any) -> tuple[list[int], int]:
    """Return the numbers of the frames that a source delivers, and how many it counts as missed."""
    numbers, missed = [], 0
    frames = Capture(uri=str(path), reconnect=False, **keys)(iter(()))
    while True:
        try:
            frame = next(frames)
        except StopIteration as end:
            return numbers, missed + sum((end.value or {}).values())
        numbers.append(read_number(frame.image))
        missed += sum(frame.missed.values())


def count_flagged(path: Path) -> int:
    """Return how many frames FFmpeg itself flags as corrupt, decoding with one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        flagged = 0
        for packet in container.demux(stream):
            with suppress(av.FFmpegError):
                flagged += sum(frame.is_corrupt for frame in stream.decode(packet))
        return flagged


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("number", [99, 98, 95])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_damage_near_the_end_costs_one_frame(tmp_path: Path, suffix: str, number: int, threads: int) -> None:
    whole = clip(tmp_path / "a.mp4", 100, options=GROUPS)
    damaged = change_packets(whole, tmp_path / f"b{suffix}", {number: zero})
    numbers, missed = read(damaged, threads=threads)
    assert (len(numbers), missed) == (99, 1)
    assert set(numbers) < set(range(100))
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("change", [zero, halve, scramble], ids=["zero", "half", "noise"])
@pytest.mark.parametrize("codec", CODECS)
def test_every_frame_of_a_damaged_file_is_delivered_or_counted(tmp_path: Path, codec: str, change: Change) -> None:
    if codec in ("vp8", "vp9") and change is zero:
        pytest.skip("a packet of zeros is a hidden frame")
    whole = clip(tmp_path / "a.mkv", **CODECS[codec])
    for number in (0, 20, 37, 38, 39):
        damaged = change_packets(whole, tmp_path / "b.mkv", {number: change})
        counts = []
        for threads in (1, 16):
            numbers, missed = read(damaged, threads=threads)
            counts.append((len(numbers), missed))
        assert counts[0] == counts[1], number
        assert sum(counts[0]) == 40, number


@pytest.mark.parametrize("codec", CODECS)
def test_no_frame_of_a_whole_file_counts_as_missed(tmp_path: Path, codec: str) -> None:
    path = clip(tmp_path / "a.mkv", **CODECS[codec])
    for threads in (1, 16):
        assert read(path, threads=threads) == (list(range(40)), 0)


def test_frames_that_the_decoder_drops_without_an_error_are_counted_near_their_place(tmp_path: Path) -> None:
    """Without its key frame H.264 drops most of a group of pictures without an error."""
    damaged = change_packets(clip(tmp_path / "a.mkv", 120, options=GROUPS), tmp_path / "b.mkv", {30: zero})
    seqs = [frame.seq for frame in Capture(uri=str(damaged), threads=1)(iter(()))]
    assert 110 < len(seqs) < 119
    assert seqs[-1] == 119
    missing = sorted(set(range(120)) - set(seqs))
    assert 30 - 16 <= missing[0] <= missing[-1] < 40 + 20


def test_damage_of_a_live_source_is_flagged_as_in_a_file(tmp_path: Path) -> None:
    options = {"g": "15", "bf": "0", "x264-params": "slices=4"}
    whole = clip(tmp_path / "a.ts", 60, options=options)
    for seed in range(3):
        damaged = flip_bits(whole, tmp_path / "live.ts", share=1e-3, seed=seed)
        _, missed = read(damaged)
        with serving(damaged.read_bytes()) as address:
            _, live_missed = read(f"{address}/live")
        assert live_missed == missed >= count_flagged(damaged) > 0


def test_frames_before_a_live_source_was_joined_are_not_missed(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.ts", 60, options={"g": "30", "bf": "2"})
    path.write_bytes(path.read_bytes()[188 * 30 :])
    numbers, missed = read(path)
    assert numbers == list(range(numbers[0], 60))
    assert missed > 20, "the file has packets of these frames"
    with serving(path.read_bytes()) as address:
        assert read(f"{address}/live") == (numbers, 0)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_no_frame_that_the_decoder_flags_is_delivered(tmp_path: Path, threads: int) -> None:
    whole = clip(tmp_path / "a.ts", 60)
    for seed in range(4):
        damaged = flip_bits(whole, tmp_path / "b.ts", share=2e-3, seed=seed)
        numbers, missed = read(damaged, threads=threads)
        assert missed >= count_flagged(damaged) > 0
        assert len(numbers) + missed <= 60


def test_half_a_jpeg_in_a_video_is_no_frame(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.avi", 10, codec="mjpeg", pix_fmt="yuvj420p")
    damaged = change_packets(whole, tmp_path / "b.avi", {4: lambda packet: packet[:-200]})
    assert count_flagged(damaged) == 0, "FFmpeg by itself takes it for a whole one"
    assert read(damaged) == ([0, 1, 2, 3, 5, 6, 7, 8, 9], 1)
    without_end = change_packets(whole, tmp_path / "c.avi", {4: lambda packet: packet[:-2]})
    assert read(without_end) == (list(range(10)), 0)  # some cameras leave out the marker of the end


def test_a_corrupt_transport_stream_ends_with_an_error_of_its_source(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.ts", 60)
    for seed in range(20):
        damaged = flip_bits(whole, tmp_path / "b.ts", share=1e-3, seed=seed)
        with suppress(SourceError):  # any other exception would be an error of the program
            numbers, missed = read(damaged)
            assert len(numbers) + missed <= 60


def test_frames_before_a_stream_that_appears_in_the_middle_are_delivered(tmp_path: Path) -> None:
    """PyAV raises IndexError after the last packet of a container with more streams than at its beginning."""

    class Growing:
        def __init__(self, container: InputContainer) -> None:
            self.format = container.format
            self._container = container

        def demux(self, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
            yield from (packet for packet in self._container.demux(stream) if packet.size)
            raise IndexError("list index out of range")

    with av.open(str(clip(tmp_path / "a.ts"))) as container:
        frames = decode_frames(Growing(container), container.streams.video[0])  # type: ignore[arg-type]
        delivered = []
        with pytest.raises(TruncatedError, match="streams appear that its beginning does not list"):
            delivered.extend(frames)
    assert [frame is not None for frame in delivered] == [True] * 40


def test_a_container_that_asks_to_be_read_again_is_read_on(tmp_path: Path) -> None:
    class Hesitant:
        def __init__(self, container: InputContainer, calls: int) -> None:
            self.format = container.format
            self._packets, self._calls = container.demux(container.streams.video[0]), calls

        def demux(self, _: VideoStream) -> Iterator[av.Packet[VideoStream]]:
            self._calls -= 1
            yield next(self._packets)
            if self._calls:
                raise av.error.BlockingIOError(11, "Resource temporarily unavailable")
            yield from self._packets

    with av.open(str(clip(tmp_path / "a.ts"))) as container:
        frames = list(decode_frames(Hesitant(container, 5), container.streams.video[0]))  # type: ignore[arg-type]
    assert [frame is not None for frame in frames] == [True] * 40


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.avi", "a.mov", "a.mp4"])
def test_a_truncated_file_is_an_error_after_its_frames(tmp_path: Path, name: str) -> None:
    codecs = {"a.webm": {"codec": "libvpx"}, "a.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"}}
    fragments = {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "5", "bf": "0"}}
    keys = codecs.get(name, {"options": {"bf": "0"}} if name == "a.mkv" else fragments)
    path = clip(tmp_path / name, **keys)
    assert read(path) == (list(range(40)), 0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    frames, error = capture_until_error(path)
    numbers = [read_number(frame.image) for frame in frames]
    assert numbers == list(range(len(numbers)))
    assert 15 < len(numbers) < 40
    assert str(error).startswith(f"{path}: breaks off after frame {len(numbers) - 1} (")


def test_a_recording_of_unknown_size_is_whole(tmp_path: Path) -> None:
    """As one that a kill ended: the size of its segment was never written."""
    path = clip(tmp_path / "a.mkv", container_options={"live": "1"}, options={"bf": "0"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    numbers, missed = read(path)
    assert (numbers, missed) == (list(range(len(numbers))), 0)


@pytest.mark.parametrize("movflags", ["", "frag_keyframe+empty_moov"], ids=["whole", "fragmented"])
def test_an_encrypted_mp4_is_named_as_encrypted(tmp_path: Path, movflags: str) -> None:
    encryption = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    path = clip(tmp_path / "a.mp4", 14, container_options=encryption | ({"movflags": movflags} if movflags else {}))
    frames, error = capture_until_error(path)
    assert frames == []
    assert isinstance(error, SourceError)
    assert str(error).startswith(f"{path}: ")
    assert "is encrypted" in str(error)
    if movflags:  # the index comes first, and says that the video is encrypted
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"sinf")])
        _, error = capture_until_error(path)
        assert str(error) == f"{path}: cannot be opened: it is encrypted"
