"""Seals: with a secret, only engines that carry its HMAC are loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stream_seg.engines.cache import find_entry, read_entries
from stream_seg.engines.cache_entry import hash_bytes
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.sidecar import AccuracyReport, Comparison
from tests.support.cache_entries import store_entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "engines"


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that $STREAM_SEG_CACHE_KEY names."""
    path = tmp_path / "key"
    path.write_bytes(b"a secret of ours, long enough")
    path.chmod(0o600)
    monkeypatch.setenv("STREAM_SEG_CACHE_KEY", str(path))
    return path


def test_with_a_secret_only_engines_with_its_seal_are_loaded(
    folder: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store_entry(folder)
    assert find_entry(folder, entry.key, "road") == entry
    assert secret.read_text() not in (folder / f"{entry.name}.json").read_text()
    secret.write_bytes(b"another secret, long enough")
    with pytest.raises(NetworkError, match=r"not loaded: its seal does not match \$STREAM_SEG_CACHE_KEY"):
        find_entry(folder, entry.key, "road")
    monkeypatch.delenv("STREAM_SEG_CACHE_KEY")
    assert find_entry(folder, entry.key, "road") == entry, "without a secret no seal is needed"
    plain = store_entry(folder)
    monkeypatch.setenv("STREAM_SEG_CACHE_KEY", str(secret))
    with pytest.raises(NetworkError, match="not loaded: it was built without a key"):
        find_entry(folder, plain.key, "road")


COMPARISON: Comparison = {
    "images": 3,
    "agreement": 0.1 + 0.2,
    "worst": 1e-7,
    "worst_image": "ein Bild, größer",
    "miou": 1.0,
    "labelled": 2,
    "miou_f32": None,
    "miou_lower": 70.0,
    "miou_loss": -0.0,
}
GATE: AccuracyReport = {
    "source": "a drive",
    "calibration": COMPARISON,
    "held_back": COMPARISON,
    "limits": {"agreement": 0.98},
    "computed_by": "openvino",
    "refused": None,
}


@pytest.mark.parametrize(
    "changed", [{"sha256": hash_bytes(b"theirs"), "bytes": 6}, {"gate": None}, {"refused": ["f32"]}]
)
def test_a_changed_entry_breaks_its_seal(folder: Path, secret: Path, changed: dict[str, object]) -> None:
    entry = store_entry(folder, gate=GATE)
    assert find_entry(folder, entry.key, "road") == entry, "the control: figures survive the JSON"
    path = folder / f"{entry.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(NetworkError, match="its seal does not match"):
        find_entry(folder, entry.key, "road")


def test_an_unusable_secret_is_an_error_before_anything_is_read(
    folder: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expect_error(message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            read_entries(folder)

    secret.chmod(0o640)
    expect_error(r"^\$STREAM_SEG_CACHE_KEY: .* is accessible to others \(mode 640\); chmod 600 it$")
    secret.chmod(0o600)
    secret.write_bytes(b"short")
    expect_error("has 5 bytes; a secret has 16 to 4096")
    os.mkfifo(secret.with_name("pipe"))
    names = {"gone": "No such file", "n" * 300: "File name too long", ".": "Is a directory", "pipe": "is not a file"}
    for name, message in names.items():
        monkeypatch.setenv("STREAM_SEG_CACHE_KEY", str(secret.parent / name))
        expect_error(message)
    if os.geteuid() == 0:
        monkeypatch.setenv("STREAM_SEG_CACHE_KEY", str(secret))
        os.chown(secret, 65534, 65534)
        expect_error("belongs to another user")
