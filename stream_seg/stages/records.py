"""`records`: write a line of JSON for each frame."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.files.writing import path_validator
from stream_seg.frame import Frame
from stream_seg.ops.labels import class_shares
from stream_seg.stages.base import STRICT, Context, Frames, Traits, require_semantic
from stream_seg.stages.growing_file import GrowingFile
from stream_seg.stages.recorder import Recorder
from stream_seg.stages.rotation import KeepGb, Rotation, SegmentMb, SegmentS


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
        Field(description="the file, .jsonl; with {stream} in its name, one per stream; {time}, {part}: as in write"),
    ]
    classes: Annotated[list[str] | None, Field(min_length=1, description="classes to list; none: all")] = None
    segment_s: SegmentS = None
    segment_mb: SegmentMb = None
    keep_gb: KeepGb = None

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT; None for one that is no table."""
        return {"path": text} if "://" not in text and Path(text).suffix.lower() == ".jsonl" else None

    def __post_init__(self) -> None:
        self._context = Context()

    def bind(self, context: Context) -> Records:
        """Return the stage with the context of a graph, and with the time or a number in its path where that is due."""
        bound = replace(self, path=self._rotation.bind(self.path, context))
        bound._context = context
        return bound

    def __call__(self, frames: Frames) -> Frames:
        with Recorder(self.path, self._begin, rotation=self._rotation, context=self._context) as recorder:
            for frame in frames:
                recorder.add(frame)
                yield frame

    @property
    def _rotation(self) -> Rotation:
        return Rotation(self.segment_s, self.segment_mb, self.keep_gb)

    def _begin(self, file: GrowingFile, _: Frame) -> Lines:
        return Lines(file, self.classes)


class Lines:
    """Records in a growing file."""

    def __init__(self, file: GrowingFile, classes: Sequence[str] | None) -> None:
        self._file, self._classes = file, classes
        self._lines = 0

    def add(self, frame: Frame) -> None:
        """Write the line of a frame. Raises OSError, and ConfigError for a frame without classes."""
        self._file.write(json.dumps(record(frame, self._classes)).encode() + b"\n")
        self._lines += 1

    def close(self) -> None:
        """Do nothing: every line is complete."""

    def extent(self) -> str:
        """Return the number of complete lines, "" for none."""
        return f"{self._lines} lines" if self._lines else ""


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
        "size": [*frame.size[::-1]],
        **content,
        "latency_ms": round((time.monotonic_ns() - frame.captured_ns) / 1e6, 3),
        "missed": dict(frame.missed),
    }
