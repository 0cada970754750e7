"""Key of a built engine, and the entry that describes it in the cache."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.network.sidecar import AccuracyReport

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Key(BaseModel):
    """Everything that an engine depends on; engines with different keys are different engines.

    `onnx` is the digest of the network's portable ONNX in float32, `shape` is (largest batch, height, width, 3), and
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
    the accuracy gate, with the reason. `seal` is the HMAC of all other fields, where a secret is set (integrity.py).
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
) -> Entry:
    """Return the entry of an engine that was just built."""
    sha256 = hash_bytes(engine)
    return Entry(
        network=network,
        key=key,
        file=f"{entry_name(network, key)}-{sha256[:12]}{suffix}",
        bytes=len(engine),
        sha256=sha256,
        created=datetime.now(timezone.utc).replace(microsecond=0),
        gate=gate,
        refused=tuple(refused),
    )


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
