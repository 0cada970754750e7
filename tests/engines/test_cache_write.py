"""Writing to the engine cache: atomic, safe against killed and concurrent builds, and clean afterwards."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream_seg.engines.cache import read_engine, read_entries
from stream_seg.engines.cache_write import clean_up, lock_key, remove_engine, store_engine
from stream_seg.errors import NetworkError, OutputError
from tests.support.cache_entries import ENGINE, make_key, store_entry
from tests.support.program import list_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "engines"


def test_storing_again_replaces(folder: Path) -> None:
    store_entry(folder)
    newer = store_entry(folder, b"newer")
    assert read_engine(folder, newer) == b"newer"
    assert [name for name in list_folder(folder) if not name.endswith(".lock")] == [newer.file, f"{newer.name}.json"]


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"^cannot write .*Not a directory$"):
        store_entry(tmp_path / "file" / "engines")


@pytest.mark.parametrize("most", [500, 1100], ids=["engine", "entry"])
def test_a_full_disk_leaves_nothing(folder: Path, most: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    long = {"device": "d" * 1500}
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(OutputError, match=r"^cannot write .* larger than this system allows$"):
            store_entry(folder, **long)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [name for name in list_folder(folder) if not name.endswith(".lock")] == []
    assert read_engine(folder, store_entry(folder, **long)) == ENGINE


KILLED_BUILD = """
import os, signal, sys
from pathlib import Path
from tests.support.cache_entries import store_entry
replace, writes = os.replace, [0]
def kill_at_write(*paths):
    writes[0] += 1
    if writes[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = kill_at_write
store_entry(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("write", [1, 2], ids=["engine", "entry"])
def test_a_killed_build_leaves_no_engine(folder: Path, write: int) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED_BUILD, str(folder), str(write)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert any(name.endswith(".partial") for name in list_folder(folder)), "the control: it was killed while writing"
    assert read_entries(folder) == ([], {})
    entry = store_entry(folder)
    assert read_engine(folder, entry) == ENGINE
    assert [name for name in list_folder(folder) if not name.endswith(".lock")] == [entry.file, f"{entry.name}.json"]


WAITING_BUILD = """
import sys, time
from pathlib import Path
from stream_seg.engines.cache import find_entry
from stream_seg.engines.cache_entry import make_entry
from stream_seg.engines.cache_write import lock_key, store_engine
from tests.support.cache_entries import ENGINE, make_key
folder, ready = Path(sys.argv[1]), Path(sys.argv[2])
ready.touch()
while len(list(ready.parent.glob("ready*"))) < 2:
    time.sleep(0.005)
with lock_key(folder, make_key()):
    entry = find_entry(folder, make_key(), "road")
    if entry is None:
        time.sleep(0.3)
        store_engine(folder, make_entry("road", make_key(), ENGINE, suffix=".onnx", gate=None), ENGINE)
print("built" if entry is None else "found")
"""


def test_two_processes_build_one_engine(folder: Path, tmp_path: Path) -> None:
    def run(number: int) -> str:
        command = [sys.executable, "-c", WAITING_BUILD, str(folder), str(tmp_path / f"ready{number}")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(run, range(2))) == ["built", "found"]
    [entry], _ = read_entries(folder)
    assert read_engine(folder, entry) == ENGINE


def test_waiting_for_another_build_times_out(folder: Path) -> None:
    with (
        lock_key(folder, make_key()),
        pytest.raises(OutputError, match="another process has been building this engine"),
        lock_key(folder, make_key(), wait_s=0.05),
    ):
        pass


def test_an_error_of_a_build_is_no_error_of_its_lock(folder: Path) -> None:
    with pytest.raises(OSError, match="of the build"), lock_key(folder, make_key()):
        raise OSError("of the build")
    with lock_key(folder, make_key(), wait_s=0.05):  # it was released
        pass


def test_removing_an_engine(folder: Path) -> None:
    entry, other = store_entry(folder), store_entry(folder, version="2.0")
    remove_engine(folder, entry.name)
    assert read_entries(folder) == ([other], {})
    assert entry.file not in list_folder(folder)


def test_old_leftovers_are_removed(folder: Path) -> None:
    entry = store_entry(folder)
    young, old, foreign = folder / ".a.partial", folder / "orphan.onnx", folder / "notes.txt"
    for path in (young, old, foreign):
        path.write_text("")
    os.utime(old, (time.time() - 7200,) * 2)
    os.utime(folder / entry.file, (time.time() - 7200,) * 2)
    assert clean_up(folder) == 1
    assert (young.exists(), old.exists(), foreign.exists()) == (True, False, True)
    assert read_engine(folder, entry) == ENGINE


def test_an_older_entry_never_loads_a_newer_engine(folder: Path) -> None:
    """A reader that has the older entry finds no engine, never a newer one that it does not describe."""
    older = store_entry(folder)
    with lock_key(folder, older.key):
        store_engine(folder, older.model_copy(update={"file": older.file}), ENGINE)
    assert read_engine(folder, older) == ENGINE
    store_entry(folder, b"newer")
    with pytest.raises(NetworkError, match="No such file"):
        read_engine(folder, older)
