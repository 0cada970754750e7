"""Engines for tests of the cache: a key, an entry and a few bytes that stand for an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stream_seg.engines.cache import building, store
from stream_seg.engines.cache_entry import Entry, Key, described, digest
from stream_seg.engines.integrity import sealed, secret
from stream_seg.network.sidecar import Report

ENGINE = b"an engine " * 100


def key(**changed: Any) -> Key:
    """The key of an f32 engine of OpenVINO."""
    said: dict[str, Any] = {
        "onnx": digest(b"onnx"),
        "backend": "openvino",
        "version": "1.0",
        "precision": "f32",
        "shape": (1, 16, 24, 3),
        "device": "a CPU",
    }
    return Key(**(said | changed))


def stored(
    folder: Path, engine: bytes = ENGINE, *, network: str = "road", gate: Report | None = None, **changed: Any
) -> Entry:
    """An entry that was put into the cache."""
    entry = sealed(described(network, key(**changed), engine, suffix=".onnx", gate=gate), secret())
    with building(folder, entry.key):
        store(folder, entry, engine)
    return entry
