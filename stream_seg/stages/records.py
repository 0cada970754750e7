"""`records`: write a line of JSON for each frame."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.files import atomic_files, map_write_errors, path_validator, require_semantic
from stream_seg.frame import Frame
from stream_seg.ops.labels import class_shares
from stream_seg.stages.base import STRICT, Frames, Traits


@dataclass(config=STRICT)
class Records:
    """Write one JSON object per frame, one per line.

    | key | value |
    |---|---|
    | `stream`, `seq` | name of the stream, and number of the frame in it, from 0 |
    | `pts_s` | presentation time in the stream, seconds |
    | `size` | [width, height] of the image, pixels |
    | `classes` | share of the image that each class covers, 0 to 1; the rest up to 1 is void, or not in `classes` |
    | `latency_ms` | milliseconds from the capture to this line |
    | `signal` | of a placeholder frame, instead of `classes`: `state`, `reason`, `since_s` (seconds without an image) |
    | `missed` | count by reason of the frames just before it that the source could not deliver |
    """

    traits = Traits(role="output", argument="a table (.jsonl)")

    path: Annotated[
        Path,
        AfterValidator(path_validator(".jsonl")),
        Field(description="the file, .jsonl; with {stream} in its name, one file per stream"),
    ]

    classes: Annotated[list[str] | None, Field(min_length=1, description="classes to list; none: all")] = None

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one that is no table."""
        return {"path": text} if "://" not in text and Path(text).suffix.lower() == ".jsonl" else None

    def __call__(self, frames: Frames) -> Frames:
        with atomic_files(self.path) as partial_of, ExitStack() as open_files:
            files: dict[Path, BinaryIO] = {}
            for frame in frames:
                line = json.dumps(record(frame, self.classes)).encode() + b"\n"
                partial = partial_of(frame.stream)
                if partial not in files:
                    files[partial] = open_files.enter_context(_open_file(partial, self.path))
                with map_write_errors(self.path):
                    files[partial].write(line)
                    files[partial].flush()  # a crash loses no line
                yield frame


def record(frame: Frame, classes: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the record of a frame at this moment, with the shares of `classes`, None for all.

    Raises ConfigError for a frame without classes and for an unknown class.
    """
    content: dict[str, Any]
    if (signal := frame.signal) is not None:
        since_s = round((time.monotonic_ns() - signal.since_ns) / 1e9, 3)
        content = {"signal": {"state": signal.state, "reason": signal.reason, "since_s": since_s}}
    else:
        semantic = require_semantic(frame, "records")
        shares = class_shares(semantic.labels, semantic.classes)
        shown = np.flatnonzero(semantic.classes.select(classes, where="records.classes"))
        content = {"classes": {semantic.classes.names[label]: round(float(shares[label]), 6) for label in shown}}
    return {
        "stream": frame.stream,
        "seq": frame.seq,
        "pts_s": round(frame.time_s, 6),
        "size": [frame.image.shape[1], frame.image.shape[0]],
        **content,
        "latency_ms": round((time.monotonic_ns() - frame.captured_ns) / 1e6, 3),
        "missed": dict(frame.missed),
    }


@contextmanager
def _open_file(partial: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing.

    After a failed write the buffer still holds data, so closing fails too, and raises the same OutputError.
    """
    with map_write_errors(path):
        file = partial.open("wb")
    try:
        yield file
    finally:
        with map_write_errors(path):
            file.close()
