"""A program that records numbered frames until it is killed: `python -m tests.support.recording_program PATH WRITER`.

It prints a line per frame that the recorder has taken: its number, and its time in nanoseconds of the monotonic clock.
WRITER is `write`, the stage, or `plain`, an MP4 without fragments. With a third argument, frames come at that rate.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

import av

from stream_seg.frame import Frame
from stream_seg.stages.write import Write
from tests.support.clips import number_image

RATE = 30
"""Frames/s of the recording."""
SIZE = (96, 64)


def frames(paced_rate: float) -> Iterator[Frame]:
    """Yield numbered frames without end, in real time if `paced_rate` is not 0."""
    start_s = time.monotonic()
    for number in count():
        if paced_rate:
            time.sleep(max(0.0, start_s + number / paced_rate - time.monotonic()))
        yield Frame("front", number, number, Fraction(1, RATE), time.monotonic_ns(), number_image(number, SIZE))


def write_plain(path: Path, source: Iterator[Frame]) -> Iterator[Frame]:
    """Write frames as most programs do: the index of the file is in memory until the end."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"tune": "zerolatency"})
        stream.width, stream.height = SIZE
        for frame in source:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image, "bgr24")))
            yield frame


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path, writer = Path(sys.argv[1]), sys.argv[2]
    source = frames(float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
    for frame in Write(path)(source) if writer == "write" else write_plain(path, source):
        print(frame.seq, frame.captured_ns, flush=True)


if __name__ == "__main__":
    main()
