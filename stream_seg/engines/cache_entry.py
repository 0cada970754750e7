"""Entries of the engine cache, and the checks that one can be trusted: owner, mode, and a seal if a secret is set.

$STREAM_SEG_CACHE_KEY names a file with a secret. With it an engine is loaded only if its JSON, which holds the SHA-256
of the engine, carries the HMAC-SHA-256 (RFC 2104) of that secret: nothing that others put into the cache is loaded. An
older engine of the same owner that somebody put back still is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import stat
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.errors import ConfigError, NetworkError
from stream_seg.files.writing import expand_home
from stream_seg.network.sidecar import AccuracyReport

VARIABLE = "STREAM_SEG_CACHE_KEY"
LEAST, MOST = 16, 4096
"""Size of a secret in bytes."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Key(BaseModel):
    """Everything that an engine depends on; engines with different keys are different engines.

    `onnx` is the digest of the network's portable ONNX in float32, `shape` is (images, height, width, 3), and
    `calibration` the digest of the images and settings of a quantization, None without one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    onnx: Sha256
    backend: str
    version: str
    precision: str
    shape: tuple[int, int, int, int]
    device: str
    compute_capability: str | None = None
    calibration: Sha256 | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all fields."""
        return hash_bytes(json.dumps(self.model_dump(), sort_keys=True).encode())


class Entry(BaseModel):
    """Description of an engine, stored as JSON beside it.

    `gate` is the accuracy report, None for float32, which needs none. `refused` are the lower precisions that failed
    the accuracy gate, with the reason. `instead_of` is the backend that `auto` would take without this engine, if the
    precision failed on that. `seal` is the HMAC of all other fields, where a secret is set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    key: Key
    file: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    created: datetime
    gate: AccuracyReport | None
    refused: tuple[str, ...] = ()
    instead_of: str | None = None
    seal: Sha256 | None = None

    @property
    def name(self) -> str:
        """Name of the engine in `stream-seg engines`."""
        return entry_name(self.network, self.key)

    @property
    def accuracy(self) -> str:
        """Accuracy report in a few words, "f32" for float32."""
        return "f32" if self.gate is None else summarize_report(self.gate)


def make_entry(
    network: str,
    key: Key,
    engine: bytes,
    *,
    suffix: str,
    gate: AccuracyReport | None,
    refused: Sequence[str] = (),
    instead_of: str | None = None,
    secret: bytes | None = None,
) -> Entry:
    """Return the entry of an engine that was just built, with the seal of `secret` if there is one."""
    sha256 = hash_bytes(engine)
    entry = Entry(
        network=network,
        key=key,
        file=f"{entry_name(network, key)}-{sha256[:12]}{suffix}",
        bytes=len(engine),
        sha256=sha256,
        created=datetime.now(timezone.utc).replace(microsecond=0),
        gate=gate,
        refused=tuple(refused),
        instead_of=instead_of,
    )
    return entry if secret is None else entry.model_copy(update={"seal": _compute_seal(entry, secret)})


def entry_name(network: str, key: Key) -> str:
    """Return the name of an engine, which is different for every key."""
    plain = re.sub(r"[^\w-]", "_", network)[:60].lstrip("-") or "network"
    return f"{plain}-{key.backend}-{key.precision}-{key.digest[:16]}"


def summarize_report(report: AccuracyReport) -> str:
    """Return the agreement with f32 on held-back images, and the change of mIoU if it is known."""
    held_back, loss = report["held_back"], report["held_back"]["miou_loss"]
    agreement = f"{100 * held_back['agreement']:.1f} % as f32"
    return agreement if loss is None else f"{agreement}, mIoU {-loss:+.2f}"


def hash_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def explain_distrust(path: Path, *, folder: bool = False) -> str | None:
    """Return the reason not to trust `path`, None if it belongs to this user and nobody else can write to it."""
    status = path.lstat()
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(status.st_mode):
        return "is a symbolic link" if stat.S_ISLNK(status.st_mode) else f"is not a {'folder' if folder else 'file'}"
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid}, this is {os.geteuid()})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"is writable by others (mode {stat.S_IMODE(status.st_mode):o}); chmod go-w it, or build again"
    return None


def read_secret() -> bytes | None:
    """Return the content of the file that $STREAM_SEG_CACHE_KEY names, None if it names none. Raises ConfigError."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    path = expand_home(Path(name))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe would block
        with open(descriptor, "rb") as file:
            if reason := _explain_exposure(os.fstat(descriptor)):
                raise ConfigError(f"${VARIABLE}: {path} {reason}")
            secret = file.read(MOST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"${VARIABLE}: cannot read {path}: {getattr(error, 'strerror', error)}") from error
    if not LEAST <= len(secret) <= MOST:
        raise ConfigError(f"${VARIABLE}: {path} has {len(secret)} bytes; a secret has {LEAST} to {MOST}")
    return secret


def _explain_exposure(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"is accessible to others (mode {stat.S_IMODE(status.st_mode):o}); chmod 600 it"
    return None


def check_seal(entry: Entry, secret: bytes | None) -> None:
    """Raise NetworkError for an entry without the seal of `secret`, if there is a secret."""
    if secret is None:
        return
    if entry.seal is None:
        raise NetworkError(f"engine {entry.name}: not loaded: it was built without a key, and ${VARIABLE} is set")
    if not hmac.compare_digest(entry.seal, _compute_seal(entry, secret)):
        raise NetworkError(f"engine {entry.name}: not loaded: its seal does not match ${VARIABLE}")


def _compute_seal(entry: Entry, secret: bytes) -> str:
    return hmac.digest(secret, entry.model_dump_json(exclude={"seal"}).encode(), hashlib.sha256).hex()
