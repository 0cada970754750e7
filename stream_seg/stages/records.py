"""`records`: what is known of each frame, as a line of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.files import file_path, final_files, semantic_of, writing
from stream_seg.frame import Frame, Signal
from stream_seg.ops.labels import class_shares
from stream_seg.stages.base import STRICT, Frames


@dataclass(config=STRICT)
class Records:
    """Write one JSON object per frame, a line each.

    | key | is |
    |---|---|
    | `stream`, `seq` | whose picture, and its number in the stream, from 0 |
    | `pts_s` | when it was shown in the stream, seconds |
    | `size` | [width, height] of the picture, pixels |
    | `classes` | the share of the picture that each class covers, 0 to 1; what is missing from the sum is void |
    | `latency_ms` | from its capture to this line |
    | `signal` | of a card in the place of a picture, instead of `classes`: `state`, `reason`, `since_s` without one |
    | `missed` | the numbers just before it that the source could not deliver, counted by reason |
    """

    path: Annotated[
        Path,
        AfterValidator(file_path(".jsonl")),
        Field(description="the file, .jsonl; {stream} in its name makes a file for each stream"),
    ]

    def __call__(self, frames: Frames) -> Frames:
        with final_files(self.path) as partial_of, ExitStack() as open_files:
            files: dict[Path, BinaryIO] = {}
            for frame in frames:
                line = json.dumps(record(frame)).encode() + b"\n"
                partial = partial_of(frame.stream)
                if partial not in files:
                    files[partial] = open_files.enter_context(_opened(partial, self.path))
                with writing(self.path):
                    files[partial].write(line)
                    files[partial].flush()  # so that a crash costs no line
                yield frame


def record(frame: Frame) -> dict[str, Any]:
    """The line of a frame, as it is now. Raises ConfigError for a frame without classes."""
    height, width = frame.image.shape[:2]
    return {
        "stream": frame.stream,
        "seq": frame.seq,
        "pts_s": round(float(frame.pts * frame.time_base), 6),
        "size": [width, height],
        **(_classes(frame) if frame.signal is None else {"signal": _said(frame.signal)}),
        "latency_ms": round((time.monotonic_ns() - frame.captured_ns) / 1e6, 3),
        "missed": dict(frame.missed),
    }


def _classes(frame: Frame) -> dict[str, Any]:
    semantic = semantic_of(frame, "records")
    shares = class_shares(semantic.labels, semantic.classes)
    names = semantic.classes.names
    return {"classes": {name: round(float(share), 6) for name, share in zip(names, shares, strict=True)}}


def _said(signal: Signal) -> dict[str, Any]:
    since_s = round((time.monotonic_ns() - signal.since_ns) / 1e9, 3)
    return {"state": signal.state, "reason": signal.reason, "since_s": since_s}


@contextmanager
def _opened(partial: Path, path: Path) -> Iterator[BinaryIO]:
    """A file to write to. What a failed write left in its buffer makes closing fail too, with the same OutputError."""
    with writing(path):
        file = partial.open("wb")
    try:
        yield file
    finally:
        with writing(path):
            file.close()
