"""Partial files: their names and locks, their way to the disk, and their end."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from stream_seg.errors import OutputError
from stream_seg.stages import growing_file
from stream_seg.stages.growing_file import GrowingFile
from tests.support.program import list_folder


@pytest.mark.parametrize("end", ["finish", "discard"])
def test_the_end_of_a_file_is_not_taken_for_its_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A sync between the new name and the close would not find the partial file."""
    file, threads = GrowingFile(tmp_path / "o.jsonl", overwrite=False), list[Thread]()
    file.write(b"{}\n")

    def then_sync(change: Callable[..., None]) -> Callable[..., None]:
        def changed(*arguments: Any, **options: Any) -> None:
            change(*arguments, **options)
            threads.append(Thread(target=file.sync))
            threads[-1].start()
            threads[-1].join(0.2)

        return changed

    monkeypatch.setattr(Path, "unlink", then_sync(Path.unlink))
    getattr(file, end)()
    for thread in threads:
        thread.join(10)
    assert threads
    assert file.failure is None
    assert os.listdir(tmp_path) == (["o.jsonl"] if end == "finish" else [])


@pytest.mark.parametrize("end", ["finish", "discard"])
def test_partial_names_that_are_taken_are_left_alone(tmp_path: Path, end: str) -> None:
    (tmp_path / "o.partial.mp4").write_text("of a killed run")
    (tmp_path / "o.partial-2.mp4").mkdir()
    (tmp_path / "o.partial-3.mp4").symlink_to("nowhere")
    os.mkfifo(tmp_path / "o.partial-4.mp4")
    before = list_folder(tmp_path)
    file = GrowingFile(tmp_path / "o.mp4", overwrite=False)
    assert file.partial == tmp_path / "o.partial-5.mp4"
    file.write(b"content")
    getattr(file, end)()
    assert list_folder(tmp_path) == sorted([*before, *(["o.mp4"] if end == "finish" else [])])
    assert (tmp_path / "o.partial.mp4").read_text() == "of a killed run"


def test_an_empty_file_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "o.partial.mp4").touch()
    assert GrowingFile(tmp_path / "o.mp4", overwrite=False).partial == tmp_path / "o.partial.mp4"


def test_a_file_system_without_locks_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    file = GrowingFile(tmp_path / "o.mp4", overwrite=False)
    file.write(b"content")
    file.finish()
    assert (tmp_path / "o.mp4").read_bytes() == b"content"


def test_a_header_reaches_the_disk_after_what_it_refers_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could leave the header of a finished MP4 without its index."""
    calls: list[str] = []
    pwrite, sync = os.pwrite, growing_file.sync_data
    monkeypatch.setattr(os, "pwrite", lambda *a: (calls.append(f"write at {a[2]}"), pwrite(*a))[1])
    monkeypatch.setattr(growing_file, "sync_data", lambda descriptor: (calls.append("sync"), sync(descriptor)))
    file = GrowingFile(tmp_path / "o.mp4", overwrite=False)
    for position, data in ((0, b"head"), (4, b"data"), (8, b"index"), (0, b"HEAD")):
        file.seek(position)
        file.write(data)
    assert calls == ["write at 0", "write at 4", "write at 8", "sync", "write at 0"]
    file.finish()
    assert calls[5:] == ["sync"]
    assert (tmp_path / "o.mp4").read_bytes() == b"HEADdataindex"


def test_after_a_failed_write_the_file_ends_at_its_last_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, pwrite = GrowingFile(tmp_path / "o.jsonl", overwrite=False), os.pwrite
    file.write(b"line\n")
    file.commit()

    def write_a_part(descriptor: int, data: bytes, position: int) -> int:
        if position > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, bytes(data[:2]), position)

    monkeypatch.setattr(os, "pwrite", write_a_part)
    for data in (b"second\n", b""):
        with pytest.raises(OSError, match="No space left"):
            file.write(data)
    assert file.closed
    assert file.keep()
    assert (tmp_path / "o.partial.jsonl").read_bytes() == b"line\n"


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "o.mp4").mkdir()
    with pytest.raises(OutputError, match=r"o\.mp4: it exists and is not a file"):
        GrowingFile(tmp_path / "o.mp4", overwrite=True)
