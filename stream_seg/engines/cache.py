"""Built engines on disk, found by what they were made of, never loaded where anything about them is in doubt.

    road-openvino-int8-1f0c2b7d9e8a4c55.json               says what the engine is, its SHA-256, its accuracy report
    road-openvino-int8-1f0c2b7d9e8a4c55-9ab37c1d20ef.onnx  the engine: a TensorRT plan, or the ONNX that is compiled

The hexadecimal numbers begin the digests of key and content. `store` writes the JSON last and in one step, so that an
engine is there whole or not at all; a lock per key lets one process build while others wait. The folder is
$STREAM_SEG_CACHE, else the user's cache folder; see docs/engines.md.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from stream_seg.backends.device import Target, target_of
from stream_seg.engines.cache_entry import Entry, Key, digest, entry_name
from stream_seg.engines.integrity import doubt, seal_doubt, secret
from stream_seg.errors import ConfigError, NetworkError, OutputError, StreamSegError
from stream_seg.files import at_home, writing
from stream_seg.network.network import Network
from stream_seg.schema.validation import validate

log = logging.getLogger(__name__)

LARGEST_SIDECAR = 1_000_000


def default_folder() -> Path:
    """Where engines are kept: $STREAM_SEG_CACHE, else the folder for caches of the user. Not made here."""
    from platformdirs import user_cache_path

    said = os.environ.get("STREAM_SEG_CACHE")
    return at_home(Path(said)) if said else user_cache_path("stream-seg") / "engines"


def trusted(folder: Path) -> bool:
    """Whether the folder is there. Raises NetworkError where it is one that others could have put engines into."""
    if not os.path.lexists(folder):
        return False
    if reason := doubt(folder, folder=True):
        raise NetworkError(f"engine cache {folder}: {reason}; no engine is loaded from it or written to it")
    return True


def entries(folder: Path) -> Iterator[tuple[Path, Entry | NetworkError]]:
    """Every JSON of the folder, by name: what it says, or why it is not believed. Raises NetworkError as `trusted`,
    ConfigError as `trust.secret`."""
    held = secret()
    if not trusted(folder):
        return
    for path in sorted(folder.glob("*.json")):
        try:
            yield path, _entry(path, held)
        except NetworkError as error:
            yield path, error


def content(folder: Path, entry: Entry) -> bytes:
    """The engine of an entry. Raises NetworkError: one line that says why it is not loaded."""
    said = _read(folder / entry.file, most=entry.bytes)
    if len(said) != entry.bytes:
        raise NetworkError(f"engine {entry.name}: not loaded: it is not {entry.bytes} bytes long, as when it was built")
    if digest(said) != entry.sha256:
        raise NetworkError(f"engine {entry.name}: not loaded: its SHA-256 is not the one noted when it was built")
    return said


def load(folder: Path, key: Key, network: str) -> Entry | None:
    """The entry of a key, None where there is none. Raises NetworkError where what is there is not believed."""
    name = entry_name(network, key)
    path = folder / f"{name}.json"
    return _entry(path, secret()) if trusted(folder) and os.path.lexists(path) else None


def fitting(folder: Path, network: Network, target: Target, *, precision: str) -> list[Entry]:
    """The engines of `network` for `target`, the one to take first. Logs what is left out because of a doubt.

    With precision "auto" one that is faster than what needs no building: quantised, or what is left after a refusal.
    """
    found, order = [], (*target.precisions, "fp8")
    for _, entry in entries(folder):
        if isinstance(entry, NetworkError):
            log.warning("%s", entry)
            continue
        key = entry.key
        if (key.onnx, key.backend) != (digest(network.f32), target.backend):
            continue
        if key.shape[1:3] != network.size or key.compute_capability != target.compute_capability:
            continue
        if key.precision not in order or precision not in ("auto", key.precision):
            continue
        if key.device not in (target.device, "any"):
            continue
        if key.version != target.version:
            log.warning("engine %s: not loaded: built with %s, here is %s", entry.name, key.version, target.version)
        elif precision != "auto" or needed(entry, shipped_int8=network.int8 is not None):
            found.append(entry)
    return sorted(found, key=lambda entry: (order.index(entry.key.precision), -entry.created.timestamp()))


def verified(folder: Path) -> Iterator[tuple[str, str | None]]:
    """The name of every engine, and the line that says why it would not be loaded, None where it would."""
    for path, entry in entries(folder):
        if isinstance(entry, NetworkError):
            yield path.stem, str(entry)
            continue
        fault = None
        try:
            content(folder, entry)
            here = target_of(entry.key.backend, _asked(entry.key))
            if here.version != entry.key.version:
                fault = f"engine {entry.name}: not loaded: built with {entry.key.version}, here is {here.version}"
        except (StreamSegError, ImportError) as error:
            fault = str(error) if entry.name in str(error) else f"engine {entry.name}: cannot be used here: {error}"
        yield path.stem, fault


def _asked(key: Key) -> str | None:
    return key.compute_capability if key.device == "any" else None


def needed(entry: Entry, *, shipped_int8: bool) -> bool:
    """Whether `auto` takes this engine rather than what needs no building."""
    lower = entry.key.precision != "f32" and not shipped_int8
    return entry.key.precision == "int8" or entry.key.backend == "tensorrt" or bool(entry.refused) or lower


def _entry(path: Path, held: bytes | None) -> Entry:
    try:
        entry = validate(Entry, _read(path, most=LARGEST_SIDECAR), where=str(path))
    except ConfigError as error:
        raise NetworkError(f"engine {path.stem}: not loaded: not written by this program ({error})") from error
    if entry.name != path.stem or not entry.file.startswith(f"{entry.name}-"):
        raise NetworkError(f"engine {path.stem}: not loaded: describes another engine, {entry.name}")
    if reason := seal_doubt(entry, held):
        raise NetworkError(f"engine {path.stem}: not loaded: {reason}")
    return entry


def _read(path: Path, *, most: int) -> bytes:
    """Up to one byte more than `most`. Raises NetworkError where the file is in doubt."""
    try:
        if reason := doubt(path):
            raise NetworkError(f"engine {path.stem}: not loaded: {path.name} {reason}")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except OSError as error:
        raise NetworkError(f"engine {path.stem}: not loaded: {path.name}: {error.strerror}") from error


SUFFIXES = (".plan", ".onnx", ".partial")


@contextmanager
def building(folder: Path, key: Key, *, wait_s: float = 1800) -> Iterator[None]:
    """Hold the right to build `key`, the folder made where it is missing; whoever comes second waits.

    What a killed build left is removed. Raises NetworkError as `cache.trusted`, OutputError where
    nothing can be written or the other builder takes longer than `wait_s`.
    """
    from filelock import FileLock, Timeout

    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    trusted(folder)
    lock = folder / f".{key.digest[:16]}.lock"
    try:
        with FileLock(lock, timeout=wait_s, mode=0o600):
            for left in folder.glob(f".{key.digest[:16]}.*.partial"):
                left.unlink()
            yield
    except Timeout as error:
        raise OutputError(
            f"engine cache {folder}: another process is building this engine for {wait_s:.0f} s"
        ) from error
    except OSError as error:  # of the lock; what the body raises is mapped there
        raise OutputError(f"cannot write {lock}: {error.strerror or error}") from error


def store(folder: Path, entry: Entry, engine: bytes) -> None:
    """Put an engine under its key, in place of an older one. To be called inside `building`. Raises OutputError."""
    old = folder / f"{entry.name}.json"
    _write(folder / entry.file, engine, key=entry.key)
    try:
        _write(old, _json(entry), key=entry.key)
    except BaseException:  # Ctrl-C too: an engine that nothing describes only fills the disk
        (folder / entry.file).unlink(missing_ok=True)
        raise
    for file in _files(folder, entry.name):
        if file.name not in (entry.file, old.name):
            file.unlink()


def remove(folder: Path, name: str) -> None:
    """Take an entry and its engine away, the JSON first. Raises OutputError."""
    with writing(folder / name):
        (folder / f"{name}.json").unlink(missing_ok=True)
        for file in _files(folder, name):
            file.unlink()


def swept(folder: Path, *, older_than_s: float = 3600.0) -> int:
    """Remove what no entry names: engines without a JSON and the parts of killed builds; how many there were.

    Only what is older than `older_than_s`: a younger one may be a build under way.
    """
    if not trusted(folder):
        return 0
    named = {entry.file for _, entry in entries(folder) if isinstance(entry, Entry)}
    loose = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name not in named]
    old = [path for path in loose if time.time() - path.lstat().st_mtime > older_than_s]
    with writing(folder):
        for path in old:
            path.unlink(missing_ok=True)
    return len(old)


def _write(path: Path, what: bytes, *, key: Key) -> None:
    """One step, on disk when it returns; nothing is left of a write that failed."""
    with (
        writing(path),
        NamedTemporaryFile(dir=path.parent, prefix=f".{key.digest[:16]}.", suffix=".partial", delete=False) as partial,
    ):
        try:
            partial.write(what)
            partial.flush()
            os.fsync(partial.fileno())
            os.replace(partial.name, path)
        except BaseException:
            os.unlink(partial.name)
            raise


def _json(entry: Entry) -> bytes:
    return entry.model_dump_json(indent=2, exclude={"seal"} if entry.seal is None else None).encode() + b"\n"


def _files(folder: Path, name: str) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(f"{name}-")]
