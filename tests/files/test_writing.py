"""Atomic outputs: which content has the final name, and when."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from stream_seg.errors import OutputError
from stream_seg.files.templates import complete_template, fill_stream, fill_time, free_path
from stream_seg.files.writing import (
    atomic_file,
    partial_path,
    path_validator,
    refuse_existing,
    replace_file,
    require_writable,
)
from tests.support.program import run_cli


def lines(path: Path, count: int = 3) -> Generator[int, None, None]:
    """Write a line to an atomic file for each number yielded."""
    with atomic_file(path) as partial, partial.open("w") as file:
        for number in range(count):
            file.write(f"{number}\n")
            yield number


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    output = lines(path)
    next(output)
    assert path.read_text() == "old"
    assert {file.name for file in tmp_path.iterdir()} == {"out.txt", ".out.partial.txt"}
    assert list(output) == [1, 2]
    assert path.read_text() == "0\n1\n2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    output = lines(path)
    next(output)
    with pytest.raises(ZeroDivisionError):
        output.throw(ZeroDivisionError())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_partial_file_of_a_killed_run_is_overwritten(tmp_path: Path) -> None:
    leftover = tmp_path / ".out.partial.txt"
    leftover.write_text("half a li")
    path = tmp_path / "out.txt"
    assert list(lines(path)) == [0, 1, 2]
    assert path.read_text() == "0\n1\n2\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_locks_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    replace_file(tmp_path / "report.json", b"{}", overwrite=False)
    assert (tmp_path / "report.json").read_bytes() == b"{}"


def test_a_link_in_place_of_the_partial_file_is_not_followed(tmp_path: Path) -> None:
    """Another user with write access to the folder could otherwise empty any file of this user."""
    other = tmp_path / "other.txt"
    other.write_text("mine")
    (tmp_path / ".out.partial.txt").symlink_to(other)
    with pytest.raises(OutputError, match=r"cannot write .*out\.txt"):
        next(lines(tmp_path / "out.txt"))
    assert other.read_text() == "mine"


def test_a_second_writer_of_a_file_is_rejected_and_the_first_continues(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    first = lines(path)
    next(first)
    with pytest.raises(OutputError, match=r"out\.txt: another output is writing it"):
        next(lines(path))
    assert list(first) == [1, 2]
    assert path.read_text() == "0\n1\n2\n"


@pytest.mark.parametrize("way", ["partial", "replace", "final"])
def test_a_path_that_leads_nowhere_is_an_error(tmp_path: Path, way: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path, message in ((tmp_path / "loop/a.txt", "loop"), (tmp_path / "a\0b.txt", "null byte")):
        if way == "partial" and message == "loop":
            assert partial_path(path).name == ".a.partial.txt"  # which cannot be created
            continue
        with pytest.raises(OutputError, match=message):
            {"partial": partial_path, "replace": require_writable, "final": lambda p: next(lines(p))}[way](path)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "out.txt"
    link.symlink_to(tmp_path / "there/real.txt")
    list(lines(link, 1))
    assert link.is_symlink()
    assert (tmp_path / "there/real.txt").read_text() == "0\n"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing/deep/out.txt", "no such folder: .*deep; create it first"),
        ("file/out.txt", "no such folder: .*file"),
        ("folder", "exists and is not a file"),
        ("/proc/out.txt", "cannot write /proc/out.txt: "),
        ("n" * 300 + ".txt", "name too long"),
    ],
)
def test_an_output_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"(?i){reason}") as error:
        next(lines(tmp_path / path))
    assert "\n" not in str(error.value)
    assert {entry.name for entry in tmp_path.iterdir()} == {"folder", "file"}


def test_a_name_that_is_too_long_is_an_error_before_the_work(tmp_path: Path) -> None:
    """The partial file has a longer name than the file."""
    require_writable(tmp_path / f"{'n' * 240}.json")
    with pytest.raises(OutputError, match="name too long"):
        require_writable(tmp_path / f"{'n' * 244}.json")


def test_a_small_file_is_replaced_atomically(tmp_path: Path) -> None:
    replace_file(tmp_path / "a.png", b"1")
    replace_file(tmp_path / "a.png", b"22")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.png", b"22")]


@pytest.mark.parametrize("stream", ["", "..", "a/b", ".hidden", "a\0b", "a\nb"])
def test_a_stream_cannot_leave_the_folder(stream: str) -> None:
    with pytest.raises(OutputError, match="is no file name"):
        fill_stream(Path("out/{stream}"), stream)
    assert fill_stream(Path("out/all"), stream) == Path("out/all")


def test_paths_are_checked() -> None:
    check = path_validator(".mp4", ".mkv")
    assert check(Path("a-{stream}.MP4")) == Path("a-{stream}.MP4")
    assert check(Path("~/a.mkv")) == Path.home() / "a.mkv"
    with pytest.raises(ValueError, match=r"'a\.avi' does not end in \.mp4 or \.mkv"):
        check(Path("a.avi"))
    for placeholder in ("{stream}", "{time}", "{part}"):
        with pytest.raises(ValueError, match="in the file name only"):
            check(Path(f"{placeholder}/a.mp4"))


def test_a_folder_is_created_in_its_parent(tmp_path: Path) -> None:
    list(lines(tmp_path / "new/out.txt", 1))
    assert (tmp_path / "new/out.txt").read_text() == "0\n"


@pytest.mark.parametrize(
    ("path", "live", "overwrite", "rotates", "expected"),
    [
        ("a/o.mp4", True, False, False, "a/o-{time}.mp4"),
        ("a/o.mp4", True, True, False, "a/o.mp4"),
        ("a/o.mp4", False, False, False, "a/o.mp4"),
        ("a/o.mp4", False, False, True, "a/o-{part}.mp4"),
        ("a/o.mp4", True, False, True, "a/o-{time}.mp4"),
        ("a/o.mp4", True, True, True, "a/o-{part}.mp4"),
        ("{part}_{stream}.mp4", True, False, True, "{part}_{stream}.mp4"),
        ("masks", True, False, False, "masks-{time}"),
    ],
)
def test_an_output_that_could_replace_an_older_one_gets_a_placeholder(
    path: str, live: bool, overwrite: bool, rotates: bool, expected: str
) -> None:
    assert complete_template(Path(path), live=live, overwrite=overwrite, rotates=rotates) == Path(expected)


def test_the_time_in_a_name_is_utc() -> None:
    assert fill_time(Path("o-{time}.mp4"), 1796063400) == Path("o-20261130T183000Z.mp4")


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    assert free_path(path) == path
    path.touch()
    (tmp_path / "o-2.mp4").symlink_to("nowhere")
    assert free_path(path) == tmp_path / "o-3.mp4"
    (tmp_path / "o-3.partial.mp4").touch()
    assert free_path(path) == tmp_path / "o-4.mp4"


def test_existing_outputs_are_refused_unless_they_may_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "o.mp4").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.DS_Store").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/000000.png").touch()
    exists = "the file exists"
    for name, fault in (("o.mp4", exists), ("full", "the folder is not empty"), ("no/../o.mp4", exists)):
        with pytest.raises(OutputError, match=f"{name}: {fault}; .* --overwrite"):
            refuse_existing(tmp_path / name, overwrite=False)
        refuse_existing(tmp_path / name, overwrite=True)
    for name in ("p.mp4", "empty", "o-{time}.mp4", "/dev/null"):
        refuse_existing(tmp_path / name, overwrite=False)


@pytest.mark.parametrize("place", ["~no.such.user/x.mp4", "~no.such.user/x/"])
def test_the_home_of_an_unknown_user_is_an_error(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("run", "synth://road?frames=1", place) == 2
    output = capfd.readouterr().err
    assert output.splitlines()[-1].endswith(": unknown user or home folder")
    assert "Traceback" not in output


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_is_taken_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """The new content stays beside it, where the error says."""
    if not links:
        monkeypatch.setattr("os.link", lambda *_, **__: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    path, partial = tmp_path / "out.txt", tmp_path / ".out.partial.txt"
    replace_file(path, b"first", overwrite=False)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match=f"out.txt: it exists by now; the new content is in {partial}"):
        replace_file(path, b"second", overwrite=False)
    assert (path.read_bytes(), partial.read_bytes()) == (b"first", b"second")
    replace_file(path, b"third", overwrite=True)
    assert path.read_bytes() == b"third"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_or_a_pipe_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    require_writable(pipe)
    refuse_existing(pipe, overwrite=False)
    with pytest.raises(OutputError, match="pipe: No such device"):
        replace_file(pipe, b"nobody reads this")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    replace_file(pipe, b"figures", overwrite=False)
    received.append(os.read(reader, 100))
    os.close(reader)
    assert (received, list(tmp_path.iterdir()), pipe.is_fifo()) == ([b"figures"], [pipe], True)
    replace_file(Path("/dev/null"), b"figures")
    assert Path("/dev/null").is_char_device()
