"""Measure decoding of 1920x1080 H.264 with one thread and with several, and the conversion of SDR and HDR frames.

The contenders alternate (A B A B); CPU-ms per frame. docs/formats.md quotes the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from av.codec.context import ThreadType
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from surroundings import JsonFile, describe_machine, figures_table, open_clip, print_results, run_command

from stream_seg.sources.convert import Converter


def main(
    frames: Annotated[int, typer.Option(min=2, help="Frames of the clip.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to measure.")] = 9,
    source: Annotated[Path | None, typer.Option("--input", help="A video instead of a synthetic clip.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure CPU-ms per frame of decoding and of conversion to BGR."""
    facts: dict[str, Any] = {"machine": describe_machine(), "frames": frames, "rounds": rounds}
    with open_clip(source, size="1920x1080", frames=frames) as clip:
        sdr = decode(clip, 1, ThreadType.SLICE, frames)
        hdr = [to_pq(frame) for frame in sdr]
        converter = Converter(clip.name)
        contenders: dict[str, Callable[[], object]] = {
            "decode, one thread": lambda: decode(clip, 1, ThreadType.SLICE, frames),
            "decode, two slice threads": lambda: decode(clip, 2, ThreadType.SLICE, frames),
            "decode, two frame threads": lambda: decode(clip, 2, ThreadType.FRAME, frames),
            "convert SDR": lambda: [converter.convert(frame) for frame in sdr],
            "convert HDR (PQ)": lambda: [converter.convert(frame) for frame in hdr],
        }
        times_ms: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds + 1):  # the first is warm-up
            for name, run in contenders.items():
                began_s = time.process_time()
                run()
                if number:
                    times_ms[name].append(1000 * (time.process_time() - began_s) / len(sdr))
    facts["cpu_ms"] = {
        name: {f"p{share}": round(float(np.percentile(values, share)), 2) for share in (0, 50, 100)}
        for name, values in times_ms.items()
    }
    table = figures_table("1920x1080", "CPU-ms per frame", "median", "least", "most")
    for name, row in facts["cpu_ms"].items():
        table.add_row(name, f"{row['p50']:.2f}", f"{row['p0']:.2f}", f"{row['p100']:.2f}")
    print_results(facts, [table], json_file)


def decode(clip: Path, threads: int, kind: ThreadType, frames: int) -> list[av.VideoFrame]:
    """Return the first frames of a clip."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_count, stream.thread_type = threads, kind
        return list(islice(container.decode(stream), frames))


def to_pq(frame: av.VideoFrame) -> av.VideoFrame:
    """Return the frame in 10 bits, marked as PQ in BT.2020."""
    marked = frame.reformat(format="yuv420p10le")
    marked.color_trc, marked.colorspace = ColorTrc.SMPTE2084, Colorspace.BT2020
    marked.color_primaries = ColorPrimaries.BT2020
    return marked


if __name__ == "__main__":
    run_command(main)
