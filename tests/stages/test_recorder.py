"""Recordings in a run: parts, names with a time, files that disappear, and errors beside them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest

from stream_seg.errors import ConfigError, OutputError, SourceError, StageError
from stream_seg.frame import Frame, Signal
from stream_seg.runtime.graph import Graph
from stream_seg.stages import growing_file, keeper
from stream_seg.stages.base import Context, Frames, Traits, bind
from stream_seg.stages.keeper import SYNC_S
from stream_seg.stages.records import Records
from stream_seg.stages.write import Write
from tests.support.clips import is_ordinary_mp4, number_image, read_number, read_video
from tests.support.fake_stages import Work, make_config, make_node
from tests.support.program import list_folder, wait_until

SIZE = (96, 64)
RATE = 10
"""Frames/s of the recordings."""
DELAY = 4
"""Frames that are not in a file yet: one in the encoder, and those of a fragment of 250 ms."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SYNC_S", 0.02)


def make_frame(seq: int, stream: str = "front") -> Frame:
    return Frame(stream, seq, seq, Fraction(1, RATE), time.monotonic_ns(), number_image(seq, SIZE))


def make_placeholder(seq: int) -> Frame:
    """Return a frame that `records` takes without classes."""
    return replace(make_frame(seq), signal=Signal("down", "refused", 0, 1))


def numbers_in(path: Path) -> list[int]:
    return [read_number(image) for _, image in read_video(path)]


@dataclass
class Camera:
    """A source of `frames` numbered frames that then calls `at_end`, and raises the exception that it returns."""

    traits: ClassVar = Traits(role="source")
    stream: str
    frames: int
    live: bool = False
    at_end: Callable[[], Exception | None] = lambda: None

    def __call__(self, _: Frames) -> Frames:
        yield from (make_frame(seq, self.stream) for seq in range(self.frames))
        if (error := self.at_end()) is not None:
            raise error


def make_graph(
    *cameras: Camera,
    output: Write,
    work: Work | None = None,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda line: None,
) -> Graph:
    """Return a graph of the cameras, with `work` behind them, that records every frame."""
    streams = [camera.stream for camera in cameras]
    nodes = [make_node(camera.stream, "source", camera) for camera in cameras]
    nodes += [make_node("work", "filter", work or Work(), *streams), make_node("write", "output", output, "work")]
    return Graph(replace(make_config(nodes), overwrite=overwrite), announce=announce)


def run(graph: Graph) -> str:
    """Run a graph to its end. Return its error, "" without one."""
    with graph:
        assert graph.wait(30), "the graph did not end"
    return str(graph.error or "")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_recording_in_parts_of_a_second(tmp_path: Path, suffix: str) -> None:
    """Each part begins with a key frame at 0 s and plays by itself; no frame is lost or doubled between them."""
    list(Write(tmp_path / f"o{suffix}", segment_s=1)(make_frame(seq) for seq in range(25)))
    parts = [tmp_path / f"o-{number:04}{suffix}" for number in (1, 2, 3)]
    assert sorted(tmp_path.iterdir()) == parts
    assert [numbers_in(part) for part in parts] == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]
    for part in parts:
        with av.open(str(part)) as container:
            first = next(container.demux(video=0))
            assert (first.is_keyframe, first.pts) == (True, 0)


def test_a_recording_in_parts_of_a_megabyte(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    images = (noise.integers(0, 256, (160, 240, 3), np.uint8) for _ in range(80))
    source = (replace(make_frame(seq), image=image) for seq, image in enumerate(images))
    list(Write(tmp_path / "o.mp4", crf=1, segment_mb=1)(source))
    parts = sorted(tmp_path.iterdir())
    assert len(parts) > 2
    assert all(1e6 <= part.stat().st_size < 2e6 for part in parts[:-1])
    assert sum(len(read_video(part)) for part in parts) == 80


def test_the_parts_of_a_second_run_continue_the_numbers(tmp_path: Path) -> None:
    for _ in range(2):
        list(Records(tmp_path / "o.jsonl", segment_s=1)(make_placeholder(seq) for seq in range(15)))
    parts = sorted(tmp_path.iterdir())
    assert [part.name for part in parts] == [f"o-{number:04}.jsonl" for number in (1, 2, 3, 4)]
    numbers = [[json.loads(line)["seq"] for line in part.read_text().splitlines()] for part in parts]
    assert numbers == [[*range(10)], [*range(10, 15)]] * 2


def test_the_oldest_parts_are_removed(tmp_path: Path) -> None:
    """Beyond keep_gb, and no other file."""
    (tmp_path / "o.mp4").write_bytes(bytes(50_000))
    (tmp_path / "o-9.mp4").write_bytes(bytes(50_000))
    stage = bind(Write(tmp_path / "o.mp4", segment_s=1, keep_gb=30e-6, crf=1), Context(recorded=True, overwrite=True))
    list(stage(make_frame(seq) for seq in range(100)))
    parts = [path for path in tmp_path.iterdir() if re.fullmatch(r"o-\d{4}\.mp4", path.name)]
    assert 0 < sum(part.stat().st_size for part in parts) <= 30_000
    assert {"o.mp4", "o-9.mp4", "o-0010.mp4"} <= {*list_folder(tmp_path)}
    assert "o-0001.mp4" not in list_folder(tmp_path)


def test_one_file_cannot_be_limited_by_removing_others() -> None:
    with pytest.raises(ConfigError, match=r"write: keep_gb: o\.mp4 is one file; set segment_s"):
        bind(Write(Path("o.mp4"), keep_gb=1), Context(name="write", recorded=True))
    bind(Write(Path("o.mp4"), keep_gb=1), Context(name="write"))  # a live one gets its time


def test_a_live_recording_has_its_time_in_its_name(tmp_path: Path) -> None:
    """A service that starts again in the same second replaces nothing, and does not fail."""
    path, lines = tmp_path / "o.mp4", list[str]()
    path.write_text("an older recording")
    for _ in range(3):
        assert run(make_graph(Camera("front", 4, live=True), output=Write(path), announce=lines.append)) == ""
    files = [tmp_path / name for name in list_folder(tmp_path) if name != "o.mp4"]
    assert len(files) == 3
    assert all(re.fullmatch(r"o-\d{8}T\d{6}Z(-\d)?\.mp4", file.name) for file in files)
    assert [numbers_in(file) for file in files] == [[0, 1, 2, 3]] * 3
    assert sorted(lines) == [f"recording to {file}" for file in files]
    assert path.read_text() == "an older recording"


def test_a_live_recording_replaces_a_file_if_it_may(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    path.write_text("an older recording")
    assert run(make_graph(Camera("front", 4, live=True), output=Write(path), overwrite=True)) == ""
    assert list_folder(tmp_path) == ["o.mp4"]
    assert numbers_in(path) == [0, 1, 2, 3]


def test_a_file_that_appears_during_the_run_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    stage = Write(path)(make_frame(seq) for seq in range(5))
    next(stage)
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"o\.mp4: it exists by now; the new content is in .*o\.partial\.mp4$"):
        list(stage)
    assert path.read_text() == "mine"
    assert numbers_in(tmp_path / "o.partial.mp4") == [0, 1, 2, 3, 4]


def test_an_error_of_another_stage_truncates_the_recording(tmp_path: Path) -> None:
    graph = make_graph(Camera("front", 60), output=Write(tmp_path / "o.mp4"), work=Work(fails_at=12))
    error = run(graph)
    assert isinstance(graph.error, StageError)
    assert error.startswith("stage work failed at frame front:12")
    assert error.endswith(f"; truncated: {tmp_path / 'o.partial.mp4'} after 12 frames (1.20 s)")
    assert list_folder(tmp_path) == ["o.partial.mp4"]
    assert numbers_in(tmp_path / "o.partial.mp4") == [*range(12)]
    assert is_ordinary_mp4(tmp_path / "o.partial.mp4")


def test_after_an_error_of_one_source_the_recordings_of_the_others_are_truncated(tmp_path: Path) -> None:
    """That of the source itself has all that came, and one that had ended before is complete."""

    def fail_at_the_end() -> Exception:
        wait_until(lambda: ended.exhausted and output.taken >= 4 + 5 + 3)
        return SourceError("rear: breaks off after frame 4")

    def wait_for_the_end() -> None:
        wait_until(graph.ending)

    cameras = (
        Camera("early", 4),
        Camera("rear", 5, at_end=fail_at_the_end),
        Camera("front", 3, at_end=wait_for_the_end),
    )
    graph = make_graph(*cameras, output=Write(tmp_path / "{stream}.mp4"))
    ended, output = (next(w for w in graph.workers if w.node.name == name) for name in ("early", "write"))
    partial = tmp_path / "front.partial.mp4"
    assert run(graph) == f"rear: breaks off after frame 4; truncated: {partial} after 3 frames (0.30 s)"
    assert list_folder(tmp_path) == ["early.mp4", "front.partial.mp4", "rear.mp4"]
    assert [numbers_in(tmp_path / name) for name in list_folder(tmp_path)] == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3, 4]]


def test_a_full_disk_under_one_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recordings of other streams are complete if they had ended, else truncated like the one that is full."""
    pwrite, limit = os.pwrite, 5_000

    def write_up_to_limit(descriptor: int, data: bytes, position: int) -> int:
        if "rear" in os.readlink(f"/proc/self/fd/{descriptor}") and position + len(data) > limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, position)

    def wait_for_the_end() -> None:
        wait_until(graph.ending)

    @dataclass
    class Rear(Camera):
        def __call__(self, frames: Frames) -> Frames:
            wait_until(lambda: ended.exhausted and output.taken >= 4 + 3)
            yield from super().__call__(frames)

    monkeypatch.setattr(os, "pwrite", write_up_to_limit)
    cameras = (Camera("early", 4), Rear("rear", 200), Camera("front", 3, at_end=wait_for_the_end))
    graph = make_graph(*cameras, output=Write(tmp_path / "{stream}.mp4"))
    ended, output = (next(w for w in graph.workers if w.node.name == name) for name in ("early", "write"))
    error = run(graph)
    assert isinstance(graph.error, OutputError)
    assert list_folder(tmp_path) == ["early.mp4", "front.partial.mp4", "rear.partial.mp4"]
    early, front, rear = (numbers_in(tmp_path / name) for name in list_folder(tmp_path))
    assert (early, front, rear) == ([0, 1, 2, 3], [0, 1, 2], [*range(len(rear))])
    assert len(rear) > 3
    assert (tmp_path / "rear.partial.mp4").stat().st_size <= limit
    front_file, rear_file = tmp_path / "front.partial.mp4", tmp_path / "rear.partial.mp4"
    truncated = f"{front_file} after 3 frames (0.30 s), {rear_file} after {len(rear)} frames ({len(rear) / RATE:.2f} s)"
    assert error == f"cannot write {tmp_path / 'rear.mp4'}: disk full; truncated: {truncated}"


@pytest.mark.parametrize("part", ["index", "header"])
def test_a_disk_that_is_full_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """The index of a finished file does not fit, or the last write fails: the fragments stay as they are."""
    pwrite = os.pwrite

    def write(descriptor: int, data: bytes, position: int) -> int:
        at_end = position > 1000 and bytes(data[4:8]) == b"moov" if part == "index" else position == 44
        if at_end:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", write)
    error = run(make_graph(Camera("front", 30), output=Write(tmp_path / "o.mp4")))
    partial = tmp_path / "o.partial.mp4"
    number = len(numbers_in(partial))
    assert number >= 30 - DELAY
    truncated = f"; truncated: {partial} after {number} frames ({number / RATE:.2f} s)"
    assert error == f"cannot write {tmp_path / 'o.mp4'}: disk full{truncated}"
    assert list_folder(tmp_path) == [partial.name]


def test_a_recording_reaches_the_disk_though_no_frame_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is in the file is synced within SYNC_S seconds."""
    synced: list[int] = []

    def wait_for_the_sync() -> None:
        wait_until(lambda: partial.exists() and partial.stat().st_size > 1000 and partial.stat().st_size in synced)

    partial, sync = tmp_path / "o.partial.mp4", growing_file.sync_data

    def sync_and_note(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        sync(descriptor)
        synced.append(size)

    monkeypatch.setattr(growing_file, "sync_data", sync_and_note)
    graph = make_graph(Camera("front", 40, at_end=wait_for_the_sync), output=Write(tmp_path / "o.mp4"))
    assert run(graph) == ""


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "moved": lambda file: file.rename(file.with_name("elsewhere.mp4")),
    "replaced": lambda file: (file.unlink(), file.write_text("another")),
    "its folder deleted": lambda file: shutil.rmtree(file.parent),
    "its folder moved": lambda file: file.parent.rename(file.parent.with_name("elsewhere")),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_recording_that_is_lost_ends_the_run(tmp_path: Path, loss: str) -> None:
    """Though no frame comes any more. The check is made every SYNC_S seconds."""
    assert SYNC_S <= 1

    def lose_the_file() -> None:
        wait_until(partial.exists)
        LOSSES[loss](partial)
        wait_until(graph.ending)

    partial = tmp_path / "new/o.partial.mp4"
    graph = make_graph(Camera("front", 3, at_end=lose_the_file), output=Write(tmp_path / "new/o.mp4"))
    message = "o.partial.mp4 was deleted, moved or replaced during the run"
    assert run(graph) == f"cannot write {tmp_path / 'new/o.mp4'}: {message}"
    assert isinstance(graph.error, OutputError)
    if loss == "replaced":
        assert partial.read_text() == "another"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENODEV, errno.ESTALE])
@pytest.mark.parametrize("call", ["sync", "look"])
def test_a_device_that_fails_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    @dataclass
    class Failing(Camera):
        def __call__(self, frames: Frames) -> Frames:
            yield from super().__call__(frames)
            wait_until(lambda: output.yielded == self.frames)
            if call == "sync":
                monkeypatch.setattr(growing_file, "sync_data", fail)
            else:
                monkeypatch.setattr(Path, "lstat", fail)
            yield from takewhile(lambda _: not graph.ending(), map(make_frame, count(self.frames)))  # to be synced

    graph = make_graph(Failing("front", 30), output=Write(tmp_path / "o.mp4"))
    output = graph.workers[-1]
    error = run(graph)
    monkeypatch.undo()
    partial = tmp_path / "o.partial.mp4"
    assert list_folder(tmp_path) == [partial.name]
    number = len(numbers_in(partial))
    assert number >= 30 - DELAY
    truncated = f"; truncated: {partial} after {number} frames ({number / RATE:.2f} s)" if call == "sync" else ""
    assert error == f"cannot write {tmp_path / 'o.mp4'}: {os.strerror(code)}{truncated}"


def test_a_new_folder_without_a_recording_is_removed(tmp_path: Path) -> None:
    assert list(Write(tmp_path / "new/o.mp4")(iter(()))) == []
    assert list_folder(tmp_path) == []
