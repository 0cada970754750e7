"""Entries for tests of the engine cache: a key, and a few bytes in place of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stream_seg.engines.cache_entry import Entry, Key, hash_bytes, make_entry, read_secret
from stream_seg.engines.cache_write import lock_key, store_engine
from stream_seg.network.sidecar import AccuracyReport

ENGINE = b"an engine " * 100


def make_key(**changes: Any) -> Key:
    """Return the key of an f32 engine of OpenVINO, with `changes`."""
    fields: dict[str, Any] = {
        "onnx": hash_bytes(b"onnx"),
        "backend": "openvino",
        "version": "1.0",
        "precision": "f32",
        "shape": (1, 16, 24, 3),
        "device": "a CPU",
    }
    return Key(**(fields | changes))


def store_entry(
    folder: Path,
    engine: bytes = ENGINE,
    *,
    network: str = "road",
    gate: AccuracyReport | None = None,
    **changes: Any,
) -> Entry:
    """Store an engine in the cache and return its entry."""
    entry = make_entry(network, make_key(**changes), engine, suffix=".onnx", gate=gate, secret=read_secret())
    with lock_key(folder, entry.key):
        store_engine(folder, entry, engine)
    return entry
