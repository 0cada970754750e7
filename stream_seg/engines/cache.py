"""Built engines on disk: found by their key, and never loaded where anything about them is in doubt.

    road-openvino-int8-1f0c2b7d9e8a4c55.json               entry: key, SHA-256, accuracy report
    road-openvino-int8-1f0c2b7d9e8a4c55-9ab37c1d20ef.onnx  engine: a TensorRT plan, or the ONNX to compile

The hexadecimal numbers are the beginning of the digests of key and content. The folder is $STREAM_SEG_CACHE, else the
user's cache folder; see docs/engines.md. `engines.cache_write` writes to it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stream_seg.backends.choose import Target, find_target
from stream_seg.backends.engine import ANY_GPU
from stream_seg.backends.registry import BACKENDS
from stream_seg.engines.cache_entry import Entry, Key, check_seal, entry_name, explain_distrust, hash_bytes, read_secret
from stream_seg.errors import ConfigError, NetworkError, StreamSegError
from stream_seg.files.writing import expand_home
from stream_seg.network.network import Network
from stream_seg.schema.validation import validate

LOG = logging.getLogger(__name__)

LARGEST_ENTRY = 1_000_000
"""Bytes of a JSON."""


def cache_folder() -> Path:
    """Return the folder of the cache: $STREAM_SEG_CACHE, else in the user's cache folder. Does not create it."""
    from platformdirs import user_cache_path

    folder = os.environ.get("STREAM_SEG_CACHE")
    return expand_home(Path(folder)) if folder else user_cache_path("stream-seg") / "engines"


def check_folder(folder: Path) -> bool:
    """Return True if the folder exists. Raises NetworkError where others could have put engines into it."""
    if not os.path.lexists(folder):
        return False
    if reason := explain_distrust(folder, folder=True):
        raise NetworkError(f"engine cache {folder}: {reason}; no engine is loaded from it or written to it")
    return True


def read_entries(folder: Path) -> tuple[list[Entry], dict[str, NetworkError]]:
    """Return the entries of the folder, and the reason for each that is not trusted, by its name.

    Raises NetworkError as `check_folder`, ConfigError as `cache_entry.read_secret`.
    """
    entries, faults, secret = list[Entry](), dict[str, NetworkError](), read_secret()
    for path in sorted(folder.glob("*.json")) if check_folder(folder) else ():
        try:
            entries.append(_read_entry(path, secret))
        except NetworkError as error:
            faults[path.stem] = error
    return entries, faults


def find_entry(folder: Path, key: Key, network: str) -> Entry | None:
    """Return the entry of a key, None if there is none. Raises NetworkError for an entry that is not trusted."""
    path = folder / f"{entry_name(network, key)}.json"
    return _read_entry(path, read_secret()) if check_folder(folder) and os.path.lexists(path) else None


def find_entry_by_name(folder: Path, text: str) -> Entry:
    """Return the engine whose name is or contains `text`. Raises ConfigError for none or several."""
    entries, _ = read_entries(folder)
    matches = [entry for entry in entries if entry.name == text] or [entry for entry in entries if text in entry.name]
    if len(matches) != 1:
        names = ", ".join(entry.name for entry in (matches or entries)) or "none"
        fault = f"is ambiguous; matches: {names}" if matches else f"is not in the cache; engines: {names}"
        raise ConfigError(f"engine {text!r} {fault}")
    return matches[0]


def read_engine(folder: Path, entry: Entry) -> bytes:
    """Return the engine of an entry. Raises NetworkError with the reason why it is not loaded."""
    content = _read_file(folder / entry.file, most=entry.bytes)
    if len(content) != entry.bytes:
        raise NetworkError(f"engine {entry.name}: not loaded: its size is not the {entry.bytes} bytes that were built")
    if hash_bytes(content) != entry.sha256:
        raise NetworkError(f"engine {entry.name}: not loaded: its SHA-256 is not that of the engine that was built")
    return content


def find_engines(folder: Path, network: Network, target: Target, *, precision: str) -> list[Entry]:
    """Return the engines of `network` for `target` in `precision`, best first. Logs engines that are not trusted.

    With precision "auto", only engines that are better than what needs no build.
    """
    device, matches = target.device, list[Entry]()
    order = [name for name in (*device.precisions, *device.on_request) if precision in ("auto", name)]
    expected = (hash_bytes(network.f32), target.backend, network.size, device.compute_capability)
    entries, faults = read_entries(folder)
    for fault in faults.values():
        LOG.warning("%s", fault)
    for entry in entries:
        key = entry.key
        if (key.onnx, key.backend, key.shape[1:3], key.compute_capability) != expected:
            continue
        if key.precision not in order or key.device not in (device.name, ANY_GPU):
            continue
        if key.version != target.version:
            LOG.warning("%s", describe_other_version(entry, target.version))
        elif precision != "auto" or _is_worthwhile(entry, shipped_int8=network.int8 is not None):
            matches.append(entry)
    return sorted(matches, key=lambda entry: (order.index(entry.key.precision), -entry.created.timestamp()))


def find_preferred_backend(folder: Path, network: Network, backends: Sequence[str], *, precision: str) -> str | None:
    """Return the backend of the newest engine of `network` that was built instead of one for the first of `backends`.

    None if there is no such engine that can be trusted.
    """
    digest = hash_bytes(network.f32)
    with suppress(NetworkError, OSError):
        entries = [
            entry
            for entry in read_entries(folder)[0]
            if entry.instead_of == backends[0]
            and (entry.key.onnx, entry.key.shape[1:3]) == (digest, network.size)
            and entry.key.backend in backends
            and precision in ("auto", entry.key.precision)
            and entry.key.version == find_target(entry.key.backend).version
        ]
        if entries:
            return max(entries, key=lambda entry: entry.created).key.backend
    return None


def _is_worthwhile(entry: Entry, *, shipped_int8: bool) -> bool:
    """Return True if "auto" prefers this engine to the network as it comes, which needs no build."""
    lower = entry.key.precision == "int8" or (entry.key.precision != "f32" and not shipped_int8)
    compiled = BACKENDS[entry.key.backend].compiler is not None
    return lower or compiled or bool(entry.refused)  # refused: a lower precision lost too much


def verify_engines(folder: Path) -> dict[str, str | None]:
    """Return the reason why an engine would not be loaded, None if it would, by the names of all engines."""
    entries, untrusted = read_entries(folder)
    faults: dict[str, str | None] = {name: str(error) for name, error in untrusted.items()}
    for entry in entries:
        fault = None
        try:
            read_engine(folder, entry)
            capability = entry.key.compute_capability if entry.key.device == ANY_GPU else None
            version = find_target(entry.key.backend, capability).version
            if version != entry.key.version:
                fault = describe_other_version(entry, version)
        except StreamSegError as error:
            fault = str(error) if entry.name in str(error) else f"engine {entry.name}: cannot be used here: {error}"
        faults[entry.name] = fault
    return dict(sorted(faults.items()))


def describe_other_version(entry: Entry, version: str) -> str:
    return f"engine {entry.name}: not loaded: built with version {entry.key.version}, installed is {version}"


def _read_entry(path: Path, secret: bytes | None) -> Entry:
    try:
        entry = validate(Entry, _read_file(path, most=LARGEST_ENTRY), where=str(path))
    except ConfigError as error:
        raise NetworkError(f"engine {path.stem}: not loaded: not written by this program ({error})") from error
    if entry.name != path.stem or not entry.file.startswith(f"{entry.name}-"):
        raise NetworkError(f"engine {path.stem}: not loaded: describes another engine, {entry.name}")
    check_seal(entry, secret)
    return entry


def _read_file(path: Path, *, most: int) -> bytes:
    """Return up to `most` + 1 bytes of a file. Raises NetworkError where the file is not trusted."""
    try:
        if reason := explain_distrust(path):
            raise NetworkError(f"engine {path.stem}: not loaded: {path.name} {reason}")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except OSError as error:
        raise NetworkError(f"engine {path.stem}: not loaded: {path.name}: {error.strerror}") from error
