"""What a built engine depends on, and what is noted beside it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.network.sidecar import Report

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Key(BaseModel):
    """All that an engine depends on. Of two keys that differ anywhere, the engines are two.

    `shape` is (largest batch, height, width, 3); `calibration` the digest of the pictures and settings of a
    quantisation, None where nothing was quantised; `onnx` the digest of the network's interchange ONNX in float32.
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
        """SHA-256 of everything above."""
        return digest(json.dumps(self.model_dump(), sort_keys=True).encode())


class Entry(BaseModel):
    """What the JSON beside an engine says. `gate` is the accuracy report, None for float32, which needs none; `refused`
    says why lower precisions were not taken; `seal` is the HMAC of all the rest, where a key is set (trust.py)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    key: Key
    file: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    created: datetime
    gate: Report | None
    refused: tuple[str, ...] = ()
    seal: Sha256 | None = None

    @property
    def name(self) -> str:
        """What `stream-seg engines` calls it."""
        return entry_name(self.network, self.key)

    @property
    def judged(self) -> str:
        """The accuracy report in a few words."""
        return "f32" if self.gate is None else in_few_words(self.gate)


def in_few_words(report: Report) -> str:
    """Of an accuracy report how many labels of held-back pictures are those of f32, and what happened to the mIoU."""
    held, loss = report["held_back"], report["held_back"]["miou_loss"]
    told = f"{100 * held['agreement']:.1f} % as f32"
    return told if loss is None else f"{told}, mIoU {-loss:+.2f}"


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def described(
    network: str, key: Key, engine: bytes, *, suffix: str, gate: Report | None, refused: Sequence[str] = ()
) -> Entry:
    """The entry of an engine that was just built."""
    sha256 = digest(engine)
    file = f"{entry_name(network, key)}-{sha256[:12]}{suffix}"
    created = datetime.now(timezone.utc).replace(microsecond=0)
    return Entry(
        network=network,
        key=key,
        file=file,
        bytes=len(engine),
        sha256=sha256,
        created=created,
        gate=gate,
        refused=tuple(refused),
    )


def entry_name(network: str, key: Key) -> str:
    """What an engine is called; two engines of one name would be of one key."""
    plain = re.sub(r"[^\w-]", "_", network)[:60].lstrip("-") or "network"
    return f"{plain}-{key.backend}-{key.precision}-{key.digest[:16]}"
