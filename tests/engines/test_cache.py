"""The cache gives back what was put into it, and nothing that anybody else made of it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream_seg.backends.device import target_of
from stream_seg.engines.cache import building, content, default_folder, entries, fitting, load, remove, store, swept
from stream_seg.engines.cache_entry import Entry, digest
from stream_seg.errors import ConfigError, NetworkError, OutputError
from stream_seg.network.network import open_network
from stream_seg.network.sidecar import Judged, Report
from tests.support.cache_entries import ENGINE, key, stored
from tests.support.program import left_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "engines"


def test_what_is_put_in_comes_out(folder: Path) -> None:
    entry = stored(folder)
    assert load(folder, entry.key, "road") == entry
    assert content(folder, entry) == ENGINE
    assert [found for _, found in entries(folder)] == [entry]
    assert load(folder, key(version="2.0"), "road") is None
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
def test_every_part_of_the_key_tells_engines_apart(folder: Path, changed: dict[str, object]) -> None:
    first, second = stored(folder), stored(folder, b"other", **changed)
    assert first.name != second.name
    assert (content(folder, first), content(folder, second)) == (ENGINE, b"other")


def test_storing_again_replaces(folder: Path) -> None:
    stored(folder)
    newer = stored(folder, b"newer")
    assert content(folder, newer) == b"newer"
    assert [name for name in left_in(folder) if not name.endswith(".lock")] == [newer.file, f"{newer.name}.json"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def link(path: Path) -> None:
    aside = path.parent.parent / "elsewhere"
    path.rename(aside)
    path.symlink_to(aside)


def lend(path: Path) -> None:
    path.chmod(0o666)


def give(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(path, 65534, 65534)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FAULTS: dict[Callable[[Path], None], str] = {
    flip: "SHA-256",
    cut: "bytes long",
    grow: "bytes long",
    link: "is a symbolic link",
    lend: "may be written by others (mode 666)",
    give: "belongs to another user",
    pipe: "is no file",
    os.unlink: "No such file",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_an_engine_in_doubt_is_not_loaded(folder: Path, fault: Callable[[Path], None]) -> None:
    entry = stored(folder)
    fault(folder / entry.file)
    with pytest.raises(NetworkError) as refused:
        content(folder, entry)
    said = str(refused.value)
    assert (said.startswith(f"engine {entry.name}") or entry.file in said, FAULTS[fault] in said) == (True, True), said
    assert "not loaded" in said
    assert "\n" not in said
    assert content(folder, stored(folder)) == ENGINE, "built again"


@pytest.mark.parametrize("fault", [link, lend, give, pipe], ids=lambda fault: fault.__name__)
def test_a_description_in_doubt_is_not_believed(folder: Path, fault: Callable[[Path], None]) -> None:
    entry = stored(folder)
    fault(folder / f"{entry.name}.json")
    with pytest.raises(NetworkError, match="not loaded"):
        load(folder, entry.key, "road")
    [(_, found)] = entries(folder)
    assert isinstance(found, NetworkError)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"file": "../../secret"}, "not written by this program"),
        ({"file": "other-engine.onnx"}, "describes another engine"),
        ({"sha256": "abc"}, "not written by this program"),
        ({"more": 1}, "unknown key"),
        ({"network": "other"}, "describes another engine"),
        ({"gate": {"limits": {}}}, "not written by this program"),
    ],
)
def test_a_foreign_description_is_not_believed(folder: Path, changed: dict[str, object], said: str) -> None:
    entry = stored(folder)
    path = folder / f"{entry.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(NetworkError, match=said):
        load(folder, entry.key, "road")


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a key that is set."""
    path = tmp_path / "key"
    path.write_bytes(b"a secret of ours, long enough")
    path.chmod(0o600)
    monkeypatch.setenv("STREAM_SEG_CACHE_KEY", str(path))
    return path


def test_with_a_key_only_what_it_sealed_is_loaded(folder: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = stored(folder)
    assert load(folder, entry.key, "road") == entry
    assert secret.read_text() not in (folder / f"{entry.name}.json").read_text()
    secret.write_bytes(b"another secret, long enough")
    with pytest.raises(NetworkError, match=r"not loaded: its seal is not that of \$STREAM_SEG_CACHE_KEY"):
        load(folder, entry.key, "road")
    monkeypatch.delenv("STREAM_SEG_CACHE_KEY")
    assert load(folder, entry.key, "road") == entry, "who holds no key asks for none"
    plain = stored(folder)
    monkeypatch.setenv("STREAM_SEG_CACHE_KEY", str(secret))
    with pytest.raises(NetworkError, match="not loaded: it was built without a key"):
        load(folder, plain.key, "road")


JUDGED: Judged = {
    "pictures": 3,
    "agreement": 0.1 + 0.2,
    "worst": 1e-7,
    "worst_picture": "ein Bild, größer",
    "miou": 1.0,
    "labelled": 2,
    "miou_f32": None,
    "miou_lower": 70.0,
    "miou_loss": -0.0,
}
GATE: Report = {
    "source": "a drive",
    "calibration": JUDGED,
    "held_back": JUDGED,
    "limits": {"agreement": 0.98},
    "computed_by": "openvino",
    "refused": None,
}


@pytest.mark.parametrize("changed", [{"sha256": digest(b"theirs"), "bytes": 6}, {"gate": None}, {"refused": ["f32"]}])
def test_a_description_that_was_changed_breaks_its_seal(folder: Path, secret: Path, changed: dict[str, object]) -> None:
    entry = stored(folder, gate=GATE)
    assert load(folder, entry.key, "road") == entry, "as it was read back"
    path = folder / f"{entry.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(NetworkError, match="its seal is not that of"):
        load(folder, entry.key, "road")


def test_a_key_that_is_none_is_said_before_anything_is_looked_for(
    folder: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            list(entries(folder))

    secret.chmod(0o640)
    refused(r"^\$STREAM_SEG_CACHE_KEY: .* is open to others \(mode 640\); chmod 600 it$")
    secret.chmod(0o600)
    secret.write_bytes(b"short")
    refused("holds 5 bytes; 16 to 4096 make a secret")
    os.mkfifo(secret.with_name("pipe"))
    names = {"gone": "No such file", "n" * 300: "File name too long", ".": "Is a directory", "pipe": "is no file"}
    for name, said in names.items():
        monkeypatch.setenv("STREAM_SEG_CACHE_KEY", str(secret.parent / name))
        refused(said)
    if os.geteuid() == 0:
        monkeypatch.setenv("STREAM_SEG_CACHE_KEY", str(secret))
        os.chown(secret, 65534, 65534)
        refused("belongs to another user")


@pytest.mark.parametrize("size", [10**13, 10**30])
def test_a_size_that_no_engine_has_is_no_memory_taken(folder: Path, size: int) -> None:
    entry = stored(folder)
    path = folder / f"{entry.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bytes": size}))
    with pytest.raises(NetworkError, match=f"it is not {size} bytes long"):
        content(folder, next(found for _, found in entries(folder) if isinstance(found, Entry)))


def test_a_precision_that_is_none_fits_nothing(folder: Path) -> None:
    network, here = open_network("road"), target_of("openvino")
    about = {"onnx": digest(network.f32), "version": here.version, "device": here.device}
    about |= {"shape": (1, *network.size, 3)}
    for precision in ("int4", "f32", "int8"):
        stored(folder, precision=precision, **about)
    found = [entry.key.precision for entry in fitting(folder, network, here, precision="auto")]
    assert found == ["int8"]
    assert [entry.key.precision for entry in fitting(folder, network, here, precision="int4")] == []


def test_a_description_of_another_key_is_not_believed(folder: Path) -> None:
    """A key that was edited, say to another version, names another engine."""
    entry = stored(folder)
    path = folder / f"{entry.name}.json"
    path.write_text(path.read_text().replace('"version": "1.0"', '"version": "2.0"'))
    with pytest.raises(NetworkError, match="describes another engine"):
        load(folder, entry.key, "road")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720])
def test_a_folder_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    entry = stored(folder)
    folder.chmod(mode)
    with pytest.raises(NetworkError, match=f"mode {mode:o}"):
        list(entries(folder))
    with pytest.raises(NetworkError, match="may be written by others"):
        load(folder, entry.key, "road")
    with pytest.raises(NetworkError, match="may be written by others"):
        stored(folder)
    folder.chmod(0o755)
    assert content(folder, entry) == ENGINE, "the control: readable by others is fine"


def test_a_folder_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    stored(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(NetworkError, match="is a symbolic link"):
        list(entries(tmp_path / "link"))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"^cannot write .*Not a directory$"):
        stored(tmp_path / "file" / "engines")


@pytest.mark.parametrize("most", [500, 1100], ids=["engine", "description"])
def test_no_space_leaves_nothing(folder: Path, most: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    long = {"device": "d" * 1500}
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(OutputError, match=r"^cannot write .* larger than this system allows$"):
            stored(folder, **long)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [name for name in left_in(folder) if not name.endswith(".lock")] == []
    assert content(folder, stored(folder, **long)) == ENGINE


DIES = """
import os, signal, sys
from pathlib import Path
from stream_seg.engines import cache as store
from tests.support.cache_entries import stored
real, writes = os.replace, [0]
def replaced(*paths):
    writes[0] += 1
    if writes[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*paths)
os.replace = replaced
stored(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("write", [1, 2], ids=["engine", "description"])
def test_killed_while_building(folder: Path, write: int) -> None:
    killed = subprocess.run([sys.executable, "-c", DIES, str(folder), str(write)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(name.endswith(".partial") for name in left_in(folder)), "the control: it was killed at work"
    assert list(entries(folder)) == []
    entry = stored(folder)
    assert content(folder, entry) == ENGINE
    assert [name for name in left_in(folder) if not name.endswith(".lock")] == [entry.file, f"{entry.name}.json"]


BUILDS = """
import sys, time
from pathlib import Path
from stream_seg.engines.cache import content, load
from stream_seg.engines.cache_entry import described
from stream_seg.engines.cache import building, store
from tests.support.cache_entries import ENGINE, key
folder, ready = Path(sys.argv[1]), Path(sys.argv[2])
ready.touch()
while len(list(ready.parent.glob("ready*"))) < 2:
    time.sleep(0.005)
with building(folder, key()):
    there = load(folder, key(), "road")
    if there is None:
        time.sleep(0.3)
        store(folder, described("road", key(), ENGINE, suffix=".onnx", gate=None), ENGINE)
print("built" if there is None else "found")
"""


def test_two_processes_end_with_one_engine(folder: Path, tmp_path: Path) -> None:
    def run(number: int) -> str:
        command = [sys.executable, "-c", BUILDS, str(folder), str(tmp_path / f"ready{number}")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(run, range(2))) == ["built", "found"]
    [(_, entry)] = entries(folder)
    assert isinstance(entry, Entry)
    assert content(folder, entry) == ENGINE


def test_who_waits_too_long_is_told(folder: Path) -> None:
    with (
        building(folder, key()),
        pytest.raises(OutputError, match="another process is building this engine"),
        building(folder, key(), wait_s=0.05),
    ):
        pass


def test_removing(folder: Path) -> None:
    entry, other = stored(folder), stored(folder, version="2.0")
    remove(folder, entry.name)
    assert [found for _, found in entries(folder)] == [other]
    assert entry.file not in left_in(folder)


def test_leftovers_are_swept_when_they_are_old(folder: Path) -> None:
    entry = stored(folder)
    young, old, foreign = folder / ".a.partial", folder / "orphan.onnx", folder / "notes.txt"
    for path in (young, old, foreign):
        path.write_text("")
    os.utime(old, (time.time() - 7200,) * 2)
    os.utime(folder / entry.file, (time.time() - 7200,) * 2)
    assert swept(folder) == 1
    assert (young.exists(), old.exists(), foreign.exists()) == (True, False, True)
    assert content(folder, entry) == ENGINE


def test_where_engines_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("STREAM_SEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "stream-seg" / "engines"
    assert list(entries(tmp_path / "nowhere")) == []


def test_an_entry_outlives_the_next_store(folder: Path) -> None:
    """A reader that holds the older description finds no engine, never a newer one that it does not describe."""
    older = stored(folder)
    with building(folder, older.key):
        store(folder, older.model_copy(update={"file": older.file}), ENGINE)
    assert content(folder, older) == ENGINE
    stored(folder, b"newer")
    with pytest.raises(NetworkError, match="No such file"):
        content(folder, older)
