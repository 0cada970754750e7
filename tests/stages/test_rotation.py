"""Names of the parts of a recording, and which old parts are removed."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from pathlib import Path

import pytest

from stream_seg.stages import rotation
from stream_seg.stages.rotation import FileNames, Rotation, prune
from tests.support.program import list_folder


def make_files(folder: Path, *names: str) -> list[Path]:
    """Create files of 1 kB, each a second younger than the one before it."""
    for age, name in enumerate(reversed(names)):
        (folder / name).write_bytes(bytes(1000))
        os.utime(folder / name, (1_796_063_400 - age,) * 2)
    return [folder / name for name in names]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == rotation.__name__]


@pytest.mark.parametrize(
    ("template", "present", "name"),
    [
        ("o.mp4", ["o.mp4"], "o.mp4"),
        ("o-{part}.mp4", [], "o-0001.mp4"),
        ("o-{part}.mp4", ["o-0002.mp4", "o-0009.mkv", "p-0009.mp4", "o-9.mp4"], "o-0003.mp4"),
        ("o-{part}.mp4", ["o-0003.partial.mp4", "o-12345.mp4"], "o-12346.mp4"),
        ("{part}+{part}.mp4", ["0004+0004.mp4", "0005+0006.mp4"], "0005+0005.mp4"),
    ],
)
def test_the_next_name(tmp_path: Path, template: str, present: list[str], name: str) -> None:
    make_files(tmp_path, *present)
    assert FileNames(tmp_path / template).next() == tmp_path / name


def test_names_with_a_time_do_not_repeat(tmp_path: Path) -> None:
    """Also within a second, and beside a file that is still growing."""
    names = FileNames(tmp_path / "o-{time}.mp4")
    for _ in range(4):
        path = names.next()
        path.with_name(f"{path.stem}.partial.mp4").touch()
    files = list_folder(tmp_path)
    assert len(files) == 4
    assert all(re.fullmatch(r"o-\d{8}T\d{6}Z(-\d)?\.partial\.mp4", name) for name in files)


def test_numbers_only_grow(tmp_path: Path) -> None:
    names = FileNames(tmp_path / "o-{part}.mp4")
    assert [names.next().name for _ in range(3)] == ["o-0001.mp4", "o-0002.mp4", "o-0003.mp4"]


@pytest.mark.parametrize(("seconds", "size", "full"), [(59.9, 10**9, False), (60, 0, True), (1, 2 * 10**9, True)])
def test_a_part_is_full(seconds: float, size: int, full: bool) -> None:
    assert Rotation(segment_s=60, segment_mb=1500).is_full(seconds, size) == full
    assert not Rotation().is_full(seconds, size)


def test_the_oldest_files_of_a_template_are_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = make_files(
        tmp_path,
        "front-20261130T183000Z.mp4",
        "front-20261130T183001Z-2.mp4",
        "rear-20261130T183000Z.mp4",
        "front-20261130T183002Z.partial.mp4",
        "front-20261130T183003Z.partial-3.mp4",
        "front-20261130T183004Z.mp4",
    )
    others = make_files(
        tmp_path,
        "front-20261130T183000Z.mkv",
        "front-20261130T1830000Z.mp4",
        "side-20261130T183000Z.mp4",
        "front.mp4",
        "my front-20261130T183000Z.mp4",
        "front-20261130T183000Z copy.mp4",
        "front-holiday.mp4",
    )
    (tmp_path / "front-20201130T183000Z.mp4").symlink_to(others[0])
    (tmp_path / "front-20211130T183000Z.mp4").mkdir()
    templates = [tmp_path / "front-{time}.mp4", tmp_path / "rear-{time}.mp4"]
    prune(templates, 6000)
    assert all(file.exists() for file in ours)
    prune(templates, 5999)
    assert [file.exists() for file in ours] == [False, True, True, True, True, True]
    prune(templates, 2000)
    assert [file.exists() for file in ours] == [False, False, True, False, False, True]
    assert all(file.exists() for file in others)
    assert len(list_folder(tmp_path)) == 2 + len(others) + 2
    messages = logged(caplog)
    assert [message.partition(":")[0] for message in messages] == [str(ours[number]) for number in (0, 1, 3, 4)]
    assert messages[0].endswith(": removed (0.0 MB), since keep_gb is 5.999e-06")


def test_neither_a_file_that_is_being_written_nor_the_newest_is_removed(tmp_path: Path) -> None:
    old, young, newest = make_files(tmp_path, "o-0001.partial.mp4", "o-0002.mp4", "o-0003.mp4")
    with old.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        prune([tmp_path / "o-{part}.mp4"], 100)
    assert (old.exists(), young.exists(), newest.exists()) == (True, False, True)
    prune([tmp_path / "o-{part}.mp4"], 100)
    assert list_folder(tmp_path) == [newest.name]


def test_a_file_that_cannot_be_removed_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    old, young, _ = make_files(tmp_path, "o-0001.mp4", "o-0002.mp4", "o-0003.mp4")
    monkeypatch.setattr(Path, "unlink", refuse)
    with caplog.at_level(logging.WARNING):
        prune([tmp_path / "o-{part}.mp4"], 1000)
    assert logged(caplog) == [f"{file}: cannot be removed: Permission denied" for file in (old, young)]
