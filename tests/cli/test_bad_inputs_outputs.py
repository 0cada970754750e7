"""Bad INPUT and OUTPUT: exit code, one line of error, and no file at the output's name or beside it."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.clips import count_frames, number_image, read_video, write_video
from tests.support.program import ENDLESS_DRIVE, count_lines, list_folder, run_cli, run_failing

CONFIG, SOURCE, OUTPUT = 2, 3, 5
SHORT = f"{ENDLESS_DRIVE}&frames=3"
PNG_BOMB_SIDE = 20_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with a folder `out` for the outputs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path


def write_clip(path: str, frames: int = 12) -> Path:
    return write_video(Path(path), (number_image(n, (96, 64)) for n in range(frames)))


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("missing.mp4", SOURCE, "missing.mp4: no such file"),
        ("empty", SOURCE, "empty: contains no image"),
        ("text.mp4", SOURCE, "text.mp4: cannot be opened: not a video"),
        ("zero.mp4", SOURCE, "zero.mp4: the file is empty"),
        ("noindex.mp4", SOURCE, "noindex.mp4: cannot be opened: the file ends before its index"),
        ("/dev/video63", SOURCE, "/dev/video63: no such camera"),
        ("ftp://host/drive.mp4", CONFIG, "unknown scheme ftp:// of the input; allowed are"),
        ("synth://sea", CONFIG, "synth://sea: no such synthetic scene"),
        ("synth://road?frames=none", CONFIG, "frames: expected whole number >= 1, got 'none'"),
    ],
)
def test_a_bad_input(folder: Path, capfd: pytest.CaptureFixture[str], source: str, code: int, message: str) -> None:
    Path("empty").mkdir()
    Path("text.mp4").write_text("a few words\n")
    Path("zero.mp4").touch()
    whole = write_clip("whole.mp4").read_bytes()
    Path("noindex.mp4").write_bytes(whole[: whole.index(b"moov")])
    result, line = run_failing(capfd, source, "out/o.mp4")
    assert (result, message in line) == (code, True), line
    assert list_folder(folder / "out") == []


def test_the_frames_before_a_break_are_kept(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = (number_image(n, (96, 64)) for n in range(40))
    path = write_video(folder / "whole.mp4", images, options={"g": "5"}, container_options={"movflags": "faststart"})
    content = path.read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    code, line = run_failing(capfd, "cut.mp4", "out/o.mp4", "--quiet")
    assert code == SOURCE
    last = re.search(r"cut.mp4: breaks off after frame (\d+)", line)
    assert last is not None
    assert 10 < int(last[1]) < 39
    assert list_folder(folder / "out") == ["o.mp4"]
    assert len(read_video(folder / "out" / "o.mp4")) == int(last[1]) + 1


def test_an_rtsp_server_that_does_not_answer(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://user:secret@127.0.0.1:{server.getsockname()[1]}/road"
        code, line = run_failing(
            capfd, address, "out/o.mp4", "--set", "capture.open_timeout_s=0.3", "--set", "capture.reconnect=false"
        )
    assert code == SOURCE
    assert "no data arrived in time" in line
    assert "secret" not in line
    assert list_folder(folder / "out") == []


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        ("missing/deep/o.mp4", OUTPUT, "cannot write missing/deep/o.mp4: no such folder"),
        ("file.txt/o.mp4", OUTPUT, "cannot write file.txt/o.mp4: no such folder"),
        ("missing/deep/masks/", OUTPUT, "no such folder: missing/deep"),
        ("out/o.avi", CONFIG, "output 'out/o.avi' is not understood"),
        ("out/o", CONFIG, "allowed: a video (.mp4, .mkv)"),
    ],
)
def test_a_bad_output(folder: Path, capfd: pytest.CaptureFixture[str], output: str, code: int, message: str) -> None:
    (folder / "file.txt").touch()
    result, line = run_failing(capfd, SHORT, output)
    assert (result, message in line) == (code, True), line
    assert list_folder(folder) == ["file.txt", "out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "out").chmod(0o500)
    code, line = run_failing(capfd, SHORT, "out/o.mp4")
    assert (code, "not writable" in line) == (OUTPUT, True)


@pytest.mark.parametrize("output", ["in.mp4", "./in.mp4", "out/../in.mp4", "symbolic.mp4", "hard.mp4"])
@pytest.mark.parametrize("as_report", [False, True])
def test_the_input_is_never_overwritten(
    folder: Path, capfd: pytest.CaptureFixture[str], output: str, as_report: bool
) -> None:
    before = write_clip("in.mp4").read_bytes()
    Path("symbolic.mp4").symlink_to("in.mp4")
    Path("hard.mp4").hardlink_to("in.mp4")
    arguments = ["out/o.mp4", "--report", output] if as_report else [output]
    code, line = run_failing(capfd, "in.mp4", *arguments)
    assert (code, "is the input as well" in line) == (OUTPUT, True)
    assert Path("in.mp4").read_bytes() == before
    assert list_folder(folder) == ["hard.mp4", "in.mp4", "out", "symbolic.mp4"]


def test_the_partial_output_of_a_killed_run_can_be_an_input(folder: Path) -> None:
    partial = write_clip("o.partial.mkv")
    before = partial.read_bytes()
    assert run_cli("run", "o.partial.mkv", "o.mkv", "-q") == 0
    assert partial.read_bytes() == before
    assert list_folder(folder) == ["o.mkv", "o.partial.mkv", "out"]


def test_no_output_is_the_partial_file_of_another(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for other in ("o.partial.mp4", "./o.partial-2.mp4"):
        code, line = run_failing(capfd, SHORT, "o.mp4", other)
        assert (code, "write and write2 would both write it" in line) == (OUTPUT, True)
    assert list_folder(folder) == ["out"]


@pytest.mark.parametrize(
    "arguments", [[SHORT, "n" * 300 + ".mp4"], [SHORT, "n" * 300 + "/"], [SHORT, "out/o.jsonl", "--report", "n" * 300]]
)
def test_a_name_that_is_too_long(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, line = run_failing(capfd, *arguments)
    assert (code, "name too long" in line) == (OUTPUT, True)


def test_a_folder_that_may_not_be_listed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", forbidden)  # root, who may run the tests, may list everything
    code, line = run_failing(capfd, "out", "out/o.jsonl")
    assert (code, line) == (SOURCE, "stream-seg: out: Permission denied")


def test_label_maps_do_not_replace_the_input_images(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("images").mkdir()
    Path("images/000000.png").write_bytes(before := make_png(96, 64))
    for source in ("images", "images/*.png", "images/000000.png"):
        code, line = run_failing(capfd, source, "images/")
        assert (code, "is the input as well" in line) == (OUTPUT, True)
    assert list_folder(folder / "images") == ["000000.png"]
    assert Path("images/000000.png").read_bytes() == before


def test_a_path_with_a_stream_name_does_not_overwrite_the_input(capfd: pytest.CaptureFixture[str]) -> None:
    write_clip("front.mp4")
    Path("g.yaml").write_text(
        "stages: {front: {stage: capture, uri: front.mp4}, write: {input: front, path: '{stream}.mp4'}}"
    )
    code, line = run_failing(capfd, "--config", "g.yaml")
    assert (code, "front.mp4: is the input as well" in line) == (OUTPUT, True)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("missing/deep/r.json", "no such folder"),
        ("out", "exists and is not a file"),
        ("out/o.jsonl", "records and the report would both write it"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    folder: Path, capfd: pytest.CaptureFixture[str], report: str, message: str
) -> None:
    code, line = run_failing(capfd, ENDLESS_DRIVE, "out/o.jsonl", "--report", report)  # the drive is endless
    assert (code, message in line) == (OUTPUT, True)
    assert list_folder(folder / "out") == []


@pytest.mark.parametrize(
    ("stages", "traces", "message"),
    [
        ({"again": {"stage": "masks", "path": "out"}}, None, "out: masks and again would both write it"),
        ({"again": {"stage": "masks", "path": "./out/../out"}}, None, "masks and again would both write it"),
        ({"again": {"stage": "masks", "path": "out/{stream}"}}, "in.mp4", "in.mp4: is the input as well"),
        (
            {"again": {"stage": "records", "path": "out/o.jsonl"}},
            "out/o.jsonl",
            "again and the traces would both write",
        ),
    ],
)
def test_no_two_outputs_write_one_file_or_folder(
    folder: Path, capfd: pytest.CaptureFixture[str], stages: dict[str, Any], traces: str | None, message: str
) -> None:
    before = write_clip("in.mp4").read_bytes()
    graph: dict[str, Any] = {"capture": {"uri": "in.mp4"}, "segment": {"input": "capture"}}
    graph |= {name: {"input": "segment", **keys} for name, keys in ({"masks": {"path": "out"}} | stages).items()}
    document = {"stages": graph} | ({"traces": {"file": traces}} if traces else {})
    Path("g.yaml").write_text(json.dumps(document))
    code, line = run_failing(capfd, "--config", "g.yaml")
    assert (code, message in line) == (OUTPUT, True), line
    assert Path("in.mp4").read_bytes() == before
    assert list_folder(folder / "out") == []


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Make writing fail beyond `size` bytes, as on a full disk. Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("output", "size"), [("o.mp4", 100_000), ("o.mkv", 100_000), ("o.jsonl", 5_000), ("masks/", 500)]
)
def test_a_full_disk(folder: Path, capfd: pytest.CaptureFixture[str], output: str, size: int) -> None:
    with limit_file_size(size):
        code, line = run_failing(capfd, f"{ENDLESS_DRIVE}&frames=60&size=320x240&noise=20", f"out/{output}", "--quiet")
    assert (code, "is larger than" in line) == (OUTPUT, True), line
    files = [str(path) for path in Path("out").rglob("*") if path.is_file()]
    if output == "masks/":
        assert files == []
        return
    name, suffix = output.split(".")
    assert files == [f"out/{name}.partial.{suffix}"]
    match = re.search(rf"; truncated: {re.escape(files[0])} after (\d+) (frames|lines)", line)
    assert match, line
    partial = Path(files[0])
    assert (count_lines(partial) if suffix == "jsonl" else count_frames(partial)) == int(match[1]) > 1


def make_png(width: int, height: int) -> bytes:
    """Return a black PNG of one bit per pixel."""
    deflate = zlib.compressobj()
    row = b"\0" + bytes((width + 7) // 8)
    pixels = b"".join([*(deflate.compress(row) for _ in range(height)), deflate.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_an_image_of_20000_x_20000_is_rejected_before_it_is_decoded(folder: Path) -> None:
    Path("bomb").mkdir()
    Path("bomb/0.png").write_bytes(make_png(PNG_BOMB_SIDE, PNG_BOMB_SIDE))
    # measured by the program itself: the system's figure for a child includes the memory of this process at the fork
    script = (
        "import sys; from stream_seg.cli.program import main; from stream_seg.runtime.report import peak_rss_mib\n"
        "try: main(['run', 'bomb', 'out/o.mp4'])\n"
        "finally: print(peak_rss_mib())"
    )
    program = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    lines = program.stderr.splitlines()
    assert (program.returncode, len(lines)) == (SOURCE, 1)
    assert "bomb/0.png: is 20000x20000 pixels, more than max_pixels" in lines[0]
    assert float(program.stdout) < 700, "MiB; the decoded image would take 1144 more"
    assert list_folder(folder / "out") == []
    assert np.prod((PNG_BOMB_SIDE, PNG_BOMB_SIDE, 3)) / 2**20 > 1144
