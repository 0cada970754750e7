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
from collections.abc import Iterator
from pathlib import Path

from stream_seg.backends.entry import Entry, Key, digest, entry_name
from stream_seg.backends.target import Target, target_of
from stream_seg.backends.trust import doubt, seal_doubt, secret
from stream_seg.errors import ConfigError, NetworkError, StreamSegError
from stream_seg.network import Network
from stream_seg.sidecar import validated
from stream_seg.uri import at_home

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
        entry = validated(Entry, _read(path, most=LARGEST_SIDECAR), where=str(path))
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
