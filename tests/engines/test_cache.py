"""Reading the engine cache: intact engines are found, and everything that is in doubt is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stream_seg.backends.choose import find_target
from stream_seg.engines.cache import cache_folder, find_engines, find_entry, read_engine, read_entries
from stream_seg.engines.cache_entry import hash_bytes
from stream_seg.errors import NetworkError
from stream_seg.network.network import open_network
from tests.support.cache_entries import ENGINE, make_key, store_entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "engines"


def test_a_stored_engine_is_found(folder: Path) -> None:
    entry = store_entry(folder)
    assert find_entry(folder, entry.key, "road") == entry
    assert read_engine(folder, entry) == ENGINE
    assert read_entries(folder) == ([entry], {})
    assert find_entry(folder, make_key(version="2.0"), "road") is None
    assert (folder.stat().st_mode & 0o777, (folder / entry.file).stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize(
    "changed",
    [
        {"onnx": "0" * 64},
        {"backend": "torch"},
        {"version": "1.1"},
        {"precision": "int8"},
        {"shape": (2, 16, 24, 3)},
        {"device": "another"},
        {"compute_capability": "8.9"},
        {"calibration": "1" * 64},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_part_of_the_key_distinguishes_engines(folder: Path, changed: dict[str, object]) -> None:
    first, second = store_entry(folder), store_entry(folder, b"other", **changed)
    assert first.name != second.name
    assert (read_engine(folder, first), read_engine(folder, second)) == (ENGINE, b"other")


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def replace_by_link(path: Path) -> None:
    aside = path.parent.parent / "elsewhere"
    path.rename(aside)
    path.symlink_to(aside)


def make_writable(path: Path) -> None:
    path.chmod(0o666)


def give_away(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(path, 65534, 65534)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FAULTS: dict[Callable[[Path], None], str] = {
    flip_bit: "SHA-256",
    truncate: "its size is not",
    append: "its size is not",
    replace_by_link: "is a symbolic link",
    make_writable: "is writable by others (mode 666)",
    give_away: "belongs to another user",
    replace_by_pipe: "is not a file",
    os.unlink: "No such file",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_damaged_or_foreign_engine_is_not_loaded(folder: Path, fault: Callable[[Path], None]) -> None:
    entry = store_entry(folder)
    fault(folder / entry.file)
    with pytest.raises(NetworkError) as caught:
        read_engine(folder, entry)
    message = str(caught.value)
    assert message.startswith(f"engine {entry.name}") or entry.file in message, message
    assert FAULTS[fault] in message
    assert "not loaded" in message
    assert "\n" not in message
    assert read_engine(folder, store_entry(folder)) == ENGINE, "built again"


@pytest.mark.parametrize(
    "fault", [replace_by_link, make_writable, give_away, replace_by_pipe], ids=lambda fault: fault.__name__
)
def test_a_foreign_entry_file_is_not_trusted(folder: Path, fault: Callable[[Path], None]) -> None:
    entry = store_entry(folder)
    fault(folder / f"{entry.name}.json")
    with pytest.raises(NetworkError, match="not loaded"):
        find_entry(folder, entry.key, "road")
    entries, faults = read_entries(folder)
    assert (entries, list(faults)) == ([], [entry.name])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"file": "../../secret"}, "not written by this program"),
        ({"file": "other-engine.onnx"}, "describes another engine"),
        ({"sha256": "abc"}, "not written by this program"),
        ({"more": 1}, "unknown key"),
        ({"network": "other"}, "describes another engine"),
        ({"gate": {"limits": {}}}, "not written by this program"),
    ],
)
def test_a_changed_entry_is_not_trusted(folder: Path, changed: dict[str, object], message: str) -> None:
    entry = store_entry(folder)
    path = folder / f"{entry.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(NetworkError, match=message):
        find_entry(folder, entry.key, "road")


@pytest.mark.parametrize("size", [10**13, 10**30])
def test_an_absurd_size_takes_no_memory(folder: Path, size: int) -> None:
    entry = store_entry(folder)
    path = folder / f"{entry.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bytes": size}))
    with pytest.raises(NetworkError, match=f"its size is not the {size} bytes"):
        read_engine(folder, read_entries(folder)[0][0])


def test_an_unknown_precision_is_never_found(folder: Path) -> None:
    network, target = open_network("road"), find_target("openvino")
    fields = {"onnx": hash_bytes(network.f32), "version": target.version, "device": target.device.name}
    for precision in ("int4", "f32", "int8"):
        store_entry(folder, precision=precision, shape=(1, *network.size, 3), **fields)
    entries = find_engines(folder, network, target, precision="auto")
    assert [entry.key.precision for entry in entries] == ["int8"]
    assert find_engines(folder, network, target, precision="int4") == []


def test_an_entry_with_an_edited_key_is_not_trusted(folder: Path) -> None:
    """A key with another version has another name."""
    entry = store_entry(folder)
    path = folder / f"{entry.name}.json"
    path.write_text(path.read_text().replace('"version": "1.0"', '"version": "2.0"'))
    with pytest.raises(NetworkError, match="describes another engine"):
        find_entry(folder, entry.key, "road")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720])
def test_a_folder_that_others_can_write_to_is_refused(folder: Path, mode: int) -> None:
    entry = store_entry(folder)
    folder.chmod(mode)
    with pytest.raises(NetworkError, match=f"mode {mode:o}"):
        read_entries(folder)
    with pytest.raises(NetworkError, match="is writable by others"):
        find_entry(folder, entry.key, "road")
    with pytest.raises(NetworkError, match="is writable by others"):
        store_entry(folder)
    folder.chmod(0o755)
    assert read_engine(folder, entry) == ENGINE, "the control: a folder that others can read is fine"


def test_a_folder_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    store_entry(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(NetworkError, match="is a symbolic link"):
        read_entries(tmp_path / "link")


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("STREAM_SEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "stream-seg" / "engines"
    assert read_entries(tmp_path / "nowhere") == ([], {})
